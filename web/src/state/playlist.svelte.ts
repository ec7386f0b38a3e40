/** The list that an image was opened from, so that the next and the one before can be opened too. */

export interface Playlist {
  /** Where the list is shown. */
  title: string;
  address: string;
  total: number;
  idAt(index: number): Promise<number | null>;
}

class Playing {
  list: Playlist | null = $state.raw(null);
  index: number = $state(-1);

  open(list: Playlist, index: number): void {
    this.list = list;
    this.index = index;
  }

  async step(by: number): Promise<number | null> {
    const next = this.index + by;
    if (!this.list || next < 0 || next >= this.list.total) return null;
    const id = await this.list.idAt(next);
    if (id !== null) this.index = next;
    return id;
  }
}

export const playing = new Playing();
