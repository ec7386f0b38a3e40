/** What lies over the points: names of clusters at their middles, and pictures in tiles. */

import type { Camera } from "./camera";
import type { Title } from "../state/run.svelte";
import type { Points } from "./points";

const MOST_NAMES = 40;
const LONGEST_NAME = 28;
const MOST_PICTURES = 600;
const TILE = 60;
const LETTER = 7.4;
const LINE = 26;

export interface Name {
  id: number;
  name: string;
  isGuess: boolean;
  left: number;
  top: number;
  width: number;
}

/** The names of as many of `clusters` as have room, the first of them first; in screen pixels. */
export function placeNames(
  clusters: Iterable<readonly [number, { x: number; y: number }]>,
  titleOf: (cluster: number) => Title,
  camera: Camera,
): Name[] {
  const placed: Name[] = [];
  for (const [id, middle] of clusters) {
    if (placed.length >= MOST_NAMES) break;
    const [left, top] = camera.toScreen(middle.x, middle.y);
    const title = titleOf(id);
    const whole = title.guess?.name ?? title.name;
    const name = whole.length > LONGEST_NAME ? `${whole.slice(0, LONGEST_NAME - 1).trimEnd()}…` : whole;
    const width = name.length * LETTER + 16;
    const isOutside =
      left < width / 2 || top < LINE / 2 || left > camera.width - width / 2 || top > camera.height - LINE / 2;
    const isTaken = placed.some(
      (other) => Math.abs(other.top - top) < LINE && Math.abs(other.left - left) < (other.width + width) / 2,
    );
    if (!isOutside && !isTaken) placed.push({ id, name, isGuess: title.guess !== null, left, top, width });
  }
  return placed;
}

export interface Tile {
  id: number;
  cluster: number;
  left: number;
  top: number;
  side: number;
}

/** One image for every tile of the screen that has points: the one nearest to the tile's middle. */
export function placePictures(points: Points, isShown: (index: number) => boolean, camera: Camera): Tile[] {
  const [west, north] = camera.toMap(0, 0);
  const [east, south] = camera.toMap(camera.width, camera.height);
  // Tiles are fixed to the map, not to the screen: moving about keeps the pictures that are shown.
  const unit = TILE / 2 ** Math.round(Math.log2(camera.scale));
  const best = new Map<string, { index: number; away: number; x: number; y: number }>();
  for (const index of points.within(west, south, east, north)) {
    if (!isShown(index)) continue;
    const [across, up] = [(points.x[index] ?? 0) / unit, (points.y[index] ?? 0) / unit];
    const [x, y] = [Math.floor(across) + 0.5, Math.floor(up) + 0.5];
    const away = (across - x) ** 2 + (up - y) ** 2;
    const key = `${x}:${y}`;
    if (away < (best.get(key)?.away ?? Infinity)) best.set(key, { index, away, x, y });
  }
  return [...best.values()].slice(0, MOST_PICTURES).map(({ index, x, y }) => {
    const [left, top] = camera.toScreen(x * unit, y * unit);
    return { id: points.ids[index] ?? 0, cluster: points.cluster[index] ?? 0, left, top, side: unit * camera.scale };
  });
}
