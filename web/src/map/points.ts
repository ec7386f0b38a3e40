/** The points of the map, scaled into −1…1, and found by place. */

import type { MapPoints } from "../api";

const CELLS = 200;

export class Points {
  readonly x: Float32Array;
  readonly y: Float32Array;
  readonly ids: Int32Array;
  readonly cluster: Int32Array;
  /** How far they reach from the middle, across and up: one of them is 1. */
  readonly extent: readonly [number, number];
  /** Points by cell: those of cell c are order[starts[c]] to order[starts[c + 1] − 1]. */
  private readonly starts = new Uint32Array(CELLS * CELLS + 1);
  private readonly order: Uint32Array;

  constructor(points: MapPoints) {
    this.ids = points.ids;
    this.cluster = points.cluster;
    [this.x, this.y, this.extent] = scaled(points.x, points.y);
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

  /** Points inside a polygon of [x, y] corners, by the even-odd rule. */
  inside(polygon: readonly (readonly [number, number])[], isShown: (index: number) => boolean): number[] {
    const [xs, ys] = [polygon.map(([x]) => x), polygon.map(([, y]) => y)];
    const found: number[] = [];
    for (const index of this.within(Math.min(...xs), Math.min(...ys), Math.max(...xs), Math.max(...ys))) {
      if (isShown(index) && isInside(polygon, this.x[index] ?? 0, this.y[index] ?? 0)) found.push(index);
    }
    return found;
  }

  /** The middle (median) of each cluster and how many points it has. */
  middles(): Map<number, { x: number; y: number; size: number }> {
    const members = Map.groupBy(this.cluster.keys(), (index) => this.cluster[index] ?? 0);
    const middles = new Map<number, { x: number; y: number; size: number }>();
    for (const [cluster, indices] of members) {
      const middle = (values: Float32Array): number =>
        Float32Array.from(indices, (index) => values[index] ?? 0).sort()[indices.length >> 1] ?? 0;
      middles.set(cluster, { x: middle(this.x), y: middle(this.y), size: indices.length });
    }
    return middles;
  }
}

function cellOf(value: number): number {
  return Math.max(0, Math.min(CELLS - 1, Math.floor(((value + 1) / 2) * CELLS)));
}

function scaled(x: Float32Array, y: Float32Array): [Float32Array, Float32Array, [number, number]] {
  const box = (values: Float32Array): [number, number] => {
    let [low, high] = [Infinity, -Infinity];
    for (const value of values) [low, high] = [Math.min(low, value), Math.max(high, value)];
    return [low, high];
  };
  const [[left, right], [bottom, top]] = [box(x), box(y)];
  const half = Math.max(right - left, top - bottom, 1e-6) / 2;
  const middled = (values: Float32Array, middle: number): Float32Array => values.map((value) => (value - middle) / half);
  const extent: [number, number] = [Math.max(0.1, (right - left) / 2 / half), Math.max(0.1, (top - bottom) / 2 / half)];
  return [middled(x, (left + right) / 2), middled(y, (bottom + top) / 2), extent];
}

function isInside(polygon: readonly (readonly [number, number])[], x: number, y: number): boolean {
  let isIn = false;
  let [ax, ay] = polygon.at(-1) ?? [0, 0];
  for (const [bx, by] of polygon) {
    if (ay > y !== by > y && x < ((bx - ax) * (y - ay)) / (by - ay) + ax) isIn = !isIn;
    [ax, ay] = [bx, by];
  }
  return isIn;
}
