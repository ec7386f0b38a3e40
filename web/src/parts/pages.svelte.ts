/** A long list that is fetched in pieces, as far as it is looked at. */

const PIECE = 200;

export type Fetch<T> = (offset: number, limit: number) => Promise<{ total: number; images: T[] }>;

export class Pages<T> {
  total: number | null = $state(null);
  failure: string | null = $state(null);
  private pieces: ReadonlyMap<number, T[]> = $state.raw(new Map());
  private coming = new Map<number, Promise<void>>();

  constructor(private fetch: Fetch<T>) {}

  at(index: number): T | undefined {
    return this.pieces.get(Math.floor(index / PIECE))?.[index % PIECE];
  }

  /** The first piece of a newer list, before the older is put away: nothing flickers. */
  async first(): Promise<this> {
    await this.piece(0);
    return this;
  }

  /** Have rows `start` to `end` (exclusive) fetched. */
  async need(start: number, end: number): Promise<void> {
    const wanted: Promise<void>[] = [];
    const last = Math.floor((Math.min(end, this.total ?? end) - 1) / PIECE);
    for (let number = Math.floor(Math.max(0, start) / PIECE); number <= last; number++) wanted.push(this.piece(number));
    await Promise.all(wanted);
  }

  async slice(start: number, end: number): Promise<T[]> {
    await this.need(start, end);
    const rows: T[] = [];
    for (let index = start; index < end; index++) {
      const row = this.at(index);
      if (row !== undefined) rows.push(row);
    }
    return rows;
  }

  private piece(number: number): Promise<void> {
    if (this.pieces.has(number)) return Promise.resolve();
    const coming = this.coming.get(number) ?? this.take(number);
    this.coming.set(number, coming);
    return coming;
  }

  private async take(number: number): Promise<void> {
    try {
      const { total, images } = await this.fetch(number * PIECE, PIECE);
      this.pieces = new Map(this.pieces).set(number, images);
      this.total = total;
      this.failure = null;
    } catch (error) {
      this.failure = error instanceof Error ? error.message : String(error);
    } finally {
      this.coming.delete(number);
    }
  }
}
