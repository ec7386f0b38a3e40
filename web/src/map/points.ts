/** The points of the map that are here, scaled into −1…1, and found by place. */

import type { Box, MapChanges, MapPart } from "../api";

const CELLS = 200;

export class Points {
  /** From −1 to 1. */
  readonly x: Float32Array;
  readonly y: Float32Array;
  readonly ids: Int32Array;
  readonly cluster: Int32Array;
  /** The version that `cluster` is of. */
  version: number;
  /** How far the map reaches from the middle, across and up: one of them is 1. */
  readonly extent: readonly [number, number];
  /** Points by cell: those of cell c are order[starts[c]] to order[starts[c + 1] − 1]. */
  private readonly starts = new Uint32Array(CELLS * CELLS + 1);
  private readonly order: Uint32Array;
  private readonly scale: Scale;

  /** All images of the parts, each once. */
  constructor(parts: readonly MapPart[]) {
    const { ids, x, y, cluster } = joined(parts);
    this.ids = ids;
    this.cluster = cluster;
    this.version = Math.min(...parts.map((part) => part.version));
    this.scale = scaleOf(parts[0]?.around);
    const { middle, half, extent } = this.scale;
    this.extent = extent;
    this.x = x.map((value) => (value - middle[0]) / half);
    this.y = y.map((value) => (value - middle[1]) / half);
    const cells = Uint32Array.from(this.x, (x, index) => cellOf(this.y[index] ?? 0) * CELLS + cellOf(x));
    for (const cell of cells) this.starts[cell + 1] = (this.starts[cell + 1] ?? 0) + 1;
    for (let cell = 0; cell < CELLS * CELLS; cell++) this.starts[cell + 1] = (this.starts[cell + 1] ?? 0) + (this.starts[cell] ?? 0);
    const next = this.starts.slice();
    this.order = new Uint32Array(this.ids.length);
    cells.forEach((cell, index) => {
      const at = next[cell] ?? 0;
      this.order[at] = index;
      next[cell] = at + 1;
    });
  }

  get length(): number {
    return this.ids.length;
  }

  /** Indices of all points in a box, by the cells that it touches. */
  *within(left: number, bottom: number, right: number, top: number): Generator<number> {
    for (let row = cellOf(bottom); row <= cellOf(top); row++) {
      const first = this.starts[row * CELLS + cellOf(left)] ?? 0;
      const last = this.starts[row * CELLS + cellOf(right) + 1] ?? 0;
      for (let at = first; at < last; at++) {
        const index = this.order[at] ?? 0;
        const [x, y] = [this.x[index] ?? 0, this.y[index] ?? 0];
        if (x >= left && x <= right && y >= bottom && y <= top) yield index;
      }
    }
  }

  /** The point nearest to (x, y), no farther than `radius`; −1: none. */
  nearest(x: number, y: number, radius: number, isShown: (index: number) => boolean): number {
    let [best, found] = [radius * radius, -1];
    for (const index of this.within(x - radius, y - radius, x + radius, y + radius)) {
      const away = ((this.x[index] ?? 0) - x) ** 2 + ((this.y[index] ?? 0) - y) ** 2;
      if (away <= best && isShown(index)) [best, found] = [away, index];
    }
    return found;
  }

  /** A place in the units of the map as the server has it. */
  toMap(x: number, y: number): [number, number] {
    const { middle, half } = this.scale;
    return [x * half + middle[0], y * half + middle[1]];
  }

  /** Take over which clusters images are in now. */
  recolour(changes: MapChanges): void {
    const now = new Map<number, number>();
    changes.ids.forEach((id, index) => now.set(id, changes.cluster[index] ?? 0));
    this.ids.forEach((id, index) => (this.cluster[index] = now.get(id) ?? this.cluster[index] ?? 0));
    this.version = changes.version;
  }

  /** The middle (median) of each cluster: of the first points, or of the others where it has none of those. */
  middles(first: number): Map<number, { x: number; y: number }> {
    const members = new Map<number, number[]>();
    this.cluster.forEach((cluster, index) => {
      const own = members.get(cluster);
      if (!own) members.set(cluster, [index]);
      else if (index < first || (own[0] ?? 0) >= first) own.push(index);
    });
    const middles = new Map<number, { x: number; y: number }>();
    for (const [cluster, indices] of members) {
      const middle = (values: Float32Array): number =>
        Float32Array.from(indices, (index) => values[index] ?? 0).sort()[indices.length >> 1] ?? 0;
      middles.set(cluster, { x: middle(this.x), y: middle(this.y) });
    }
    return middles;
  }
}

function cellOf(value: number): number {
  return Math.max(0, Math.min(CELLS - 1, Math.floor(((value + 1) / 2) * CELLS)));
}

interface Scale {
  middle: readonly [number, number];
  half: number;
  extent: readonly [number, number];
}

function scaleOf(around: Box | undefined): Scale {
  const { west, south, east, north } = around ?? { west: -1, south: -1, east: 1, north: 1 };
  const half = Math.max(east - west, north - south, 1e-6) / 2;
  const extent = [Math.max(0.1, (east - west) / 2 / half), Math.max(0.1, (north - south) / 2 / half)] as const;
  return { middle: [(west + east) / 2, (south + north) / 2], half, extent };
}

function joined(parts: readonly MapPart[]): Pick<MapPart, "ids" | "x" | "y" | "cluster"> {
  const seen = new Set<number>();
  const kept = parts.map((part) =>
    // A set is made of the parts before only where there are any.
    parts.length === 1 ? null : part.ids.map((id, index) => (seen.size === seen.add(id).size ? -1 : index)).filter((index) => index >= 0),
  );
  const length = parts.reduce((sum, part, number) => sum + (kept[number]?.length ?? part.ids.length), 0);
  const out = { ids: new Int32Array(length), x: new Float32Array(length), y: new Float32Array(length), cluster: new Int32Array(length) };
  let start = 0;
  parts.forEach((part, number) => {
    const places = kept[number];
    for (const name of ["ids", "x", "y", "cluster"] as const) {
      out[name].set(places ? Array.from(places, (place) => part[name][place] ?? 0) : part[name], start);
    }
    start += places?.length ?? part.ids.length;
  });
  return out;
}
