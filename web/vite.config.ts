import { svelte } from "@sveltejs/vite-plugin-svelte";
import { defineConfig } from "vite";

// The page is served under a strict Content-Security-Policy: no inline script or style, no data: URIs for code.
export default defineConfig({
  base: "./",
  plugins: [svelte()],
  build: {
    outDir: "../src/shoal/browse/page",
    emptyOutDir: true,
    assetsInlineLimit: 0,
    modulePreload: { polyfill: false },
    target: ["chrome123", "firefox128", "safari17.5"],
  },
});
