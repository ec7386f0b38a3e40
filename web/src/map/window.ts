/** Which window of the map is asked for, when only some of its images are here. */

import type { Box, MapPart } from "../api";
import type { Camera } from "./camera";
import type { Points } from "./points";

/** How far around what is seen is asked for: a share of it, at each side. */
const MARGIN = 0.3;
/** Until what is seen is so small a share of what was asked for, nothing more is. */
const LEAST_SHARE = 0.2;
/** Nearer than this, more is asked for than the whole map shows. */
const NEAR = 1.15;

/** A window that was asked for, and what came. */
export interface Asked {
  window: Box | null;
  only: number | null;
  part: MapPart;
}

export function isWhole({ part }: Asked): boolean {
  return part.ids.length === part.total;
}

/** Whether there may be more to show than the whole map does. */
export function isNear(camera: Camera, only: number | null): boolean {
  return only !== null || camera.zoom >= NEAR;
}

/**
 * The window to ask for now; null: none, since what is here is enough.
 *
 * `whole`: the images that the map shows at first; `near`: what was asked for last.
 */
export function nextWindow(camera: Camera, points: Points, whole: Asked, near: Asked | null, only: number | null): Box | null {
  if (isWhole(whole) || !isNear(camera, only)) return null;
  const seen = windowOf(camera, points, 0);
  if (near?.window && near.only === only && holds(near.window, seen) && (isWhole(near) || area(seen) > LEAST_SHARE * area(near.window))) return null;
  return windowOf(camera, points, MARGIN);
}

function windowOf(camera: Camera, points: Points, margin: number): Box {
  const [left, top] = [-margin * camera.width, -margin * camera.height];
  const [west, north] = points.toMap(...camera.toMap(left, top));
  const [east, south] = points.toMap(...camera.toMap(camera.width - left, camera.height - top));
  return { west, south, east, north };
}

function holds(outer: Box, inner: Box): boolean {
  return outer.west <= inner.west && outer.south <= inner.south && outer.east >= inner.east && outer.north >= inner.north;
}

function area(box: Box): number {
  return (box.east - box.west) * (box.north - box.south);
}
