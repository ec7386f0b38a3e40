/** A cluster keeps its colour as long as it keeps its number: the report's palette, in its order, and grey for noise. */

const COLOURS = [
  "#4477b8", "#e08a3c", "#4f9d69", "#cc5a58", "#8a6bbd", "#2f9fae", "#d07fb0", "#a58a2d", "#7a8ea8", "#9b6a4f",
  "#6aa5de", "#d9a441", "#86b35b", "#b0487e", "#5f66c4", "#3aa58f", "#e2766d", "#8f9a3a", "#b58ad6", "#c98b66",
] as const;

export const NOISE_COLOUR = "#8a8f96";

export function colourOf(cluster: number): string {
  if (cluster < 0) return NOISE_COLOUR;
  return COLOURS[cluster % COLOURS.length] ?? NOISE_COLOUR;
}

/** Red, green, blue from 0 to 255. */
export function channels(colour: string): [number, number, number] {
  const value = Number.parseInt(colour.slice(1), 16);
  return [(value >> 16) & 255, (value >> 8) & 255, value & 255];
}
