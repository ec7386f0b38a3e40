/** Where the map is looked at from: screen pixels = (point − centre) · scale + middle of the screen. */

const NEAREST = 400;
const FARTHEST = 0.6;

export class Camera {
  x = 0;
  y = 0;
  /** Screen pixels a unit; the whole map lies between −1 and 1. */
  scale = 1;
  width = 1;
  height = 1;
  /** Half of the map's width and height: one of them is 1. */
  extent: readonly [number, number] = [1, 1];
  /** Pixels at the right that something else lies on. */
  covered = 0;

  get whole(): number {
    const [across, up] = this.extent;
    return Math.min((this.width - this.covered) / across, this.height / up) * 0.46;
  }

  get zoom(): number {
    return this.scale / this.whole;
  }

  resize(width: number, height: number): void {
    const zoom = this.width > 1 ? this.zoom : 1;
    [this.width, this.height] = [Math.max(2, width), Math.max(2, height)];
    this.scale = this.whole * zoom;
  }

  reset(): void {
    [this.x, this.y, this.scale] = [this.covered / 2 / this.whole, 0, this.whole];
  }

  toScreen(x: number, y: number): [number, number] {
    return [(x - this.x) * this.scale + this.width / 2, this.height / 2 - (y - this.y) * this.scale];
  }

  toMap(left: number, top: number): [number, number] {
    return [(left - this.width / 2) / this.scale + this.x, (this.height / 2 - top) / this.scale + this.y];
  }

  pan(dx: number, dy: number): void {
    this.x = Math.max(-1.2, Math.min(1.2, this.x - dx / this.scale));
    this.y = Math.max(-1.2, Math.min(1.2, this.y + dy / this.scale));
  }

  /** Nearer by `factor`, with what lies at (left, top) staying there. */
  zoomAt(left: number, top: number, factor: number): void {
    const [x, y] = this.toMap(left, top);
    this.scale = Math.max(this.whole * FARTHEST, Math.min(this.whole * NEAREST, this.scale * factor));
    this.x = x - (left - this.width / 2) / this.scale;
    this.y = y + (top - this.height / 2) / this.scale;
  }
}
