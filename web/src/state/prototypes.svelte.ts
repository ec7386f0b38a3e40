/** Prototypes of clusters that came without them: asked for when their cards are made, some at a time. */

import { api, type Cluster, type Level } from "../api";
import { notices } from "./notices.svelte";
import { run } from "./run.svelte";

const MOST = 100;

class Prototypes {
  private known: ReadonlyMap<string, number[]> = $state.raw(new Map());
  private wanted = new Map<Level, Set<number>>();
  private base = "";

  /** Those that are known: of a cluster that changed the former ones, until the new ones are there. */
  of(cluster: Cluster, level: Level): number[] {
    return cluster.prototypes ?? this.known.get(`${level} ${cluster.id}`) ?? [];
  }

  /** Have a cluster's prototypes fetched, with those of all others that are asked for just now. */
  need(cluster: Cluster, level: Level): void {
    if (cluster.prototypes) return;
    if (!this.wanted.size) setTimeout(() => this.take());
    const wanted = this.wanted.get(level) ?? new Set();
    this.wanted.set(level, wanted.add(cluster.id));
  }

  private take(): void {
    const { wanted } = this;
    this.wanted = new Map();
    for (const [level, ids] of wanted) {
      const all = [...ids];
      for (let start = 0; start < all.length; start += MOST) void this.fetch(level, all.slice(start, start + MOST));
    }
  }

  private async fetch(level: Level, ids: number[]): Promise<void> {
    const { base } = run.seen;
    try {
      const { clusters } = await api.prototypes(level, ids);
      const known = new Map(base === this.base ? this.known : []); // else the numbers are other clusters'
      for (const { id, prototypes } of clusters) known.set(`${level} ${id}`, prototypes);
      [this.known, this.base] = [known, base];
    } catch (error) {
      notices.complain(error);
    }
  }
}

export const prototypes = new Prototypes();
