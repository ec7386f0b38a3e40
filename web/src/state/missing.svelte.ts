/** Images whose picture could not be had lately: their places say so at once, and nobody is asked whenever they scroll by. */

import { SvelteMap } from "svelte/reactivity";

const AGAIN_MS = 60_000;

const since = new SvelteMap<number, number>();

export const missing = {
  add: (id: number): void => void since.set(id, performance.now()),
  has: (id: number): boolean => performance.now() - (since.get(id) ?? -Infinity) < AGAIN_MS,
};
