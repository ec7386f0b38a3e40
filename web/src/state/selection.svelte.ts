/** What is selected: images in the grids and on the map, clusters among the cards. */

class Selection {
  private chosen: ReadonlySet<number> = $state.raw(new Set());

  get size(): number {
    return this.chosen.size;
  }

  get ids(): number[] {
    return [...this.chosen];
  }

  has(id: number): boolean {
    return this.chosen.has(id);
  }

  toggle(id: number): void {
    const next = new Set(this.chosen);
    if (!next.delete(id)) next.add(id);
    this.chosen = next;
  }

  add(ids: Iterable<number>): void {
    const next = new Set(this.chosen);
    for (const id of ids) next.add(id);
    this.chosen = next;
  }

  replace(ids: Iterable<number>): void {
    this.chosen = new Set(ids);
  }

  clear(): void {
    if (this.chosen.size) this.chosen = new Set();
  }
}

export const selectedImages = new Selection();
export const selectedClusters = new Selection();
