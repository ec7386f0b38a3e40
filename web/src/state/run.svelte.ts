/** The run that is open: its facts, its clusters at the level shown, and every change to them. */

import { api, ApiError, session, type Called, type Cluster, type Edit, type Guess, type Level, type RunInfo, type Version } from "../api";
import { notices } from "./notices.svelte";
import { selectedClusters } from "./selection.svelte";
import * as words from "../words";

const LEVEL = "shoal-level";
/** The level that edits are made at; the others are for looking. */
export const EDITED: Level = "chosen";

/** What the page calls a cluster: a person's name; or its number, and beside it a guess of what it shows. */
export interface Title {
  name: string;
  guess: Guess | null;
}

class Run {
  info: RunInfo | null = $state.raw(null);
  /** Clusters at the level that can be edited; every other part of the page speaks of these. */
  chosen: Cluster[] = $state.raw([]);
  /** Clusters at the level shown among the cards. */
  shown: Cluster[] = $state.raw([]);
  level: Level = $state(EDITED);
  /** Of `shown`: another than `level` while that is still coming. */
  private shownLevel: Level = $state(EDITED);
  failure: ApiError | null = $state.raw(null);
  /** Another with every change of the clusters, whoever made it: lists load again. */
  seen = $state.raw<Version>({ version: -1, base: "" });
  isBusy: boolean = $state(false);
  /** The server cannot be reached any more. */
  isCut: boolean = $state(false);
  private byId: Map<number, Cluster> = $derived(new Map(this.chosen.map((cluster) => [cluster.id, cluster])));
  /** By the chosen clusters: how many parts each has at the level shown, the largest first. */
  private partsOf: Map<number | null, Cluster[]> = $derived(Map.groupBy(this.shown, (cluster) => cluster.parent));
  private queue: Promise<unknown> = Promise.resolve();
  /** Edits that were one change to the person, as long as nothing came after: how many are undone, or redone, at once. */
  private together = { version: -1, count: 1, next: "undo" };

  get isEditable(): boolean {
    return this.shownLevel === EDITED && this.info?.kind === "run";
  }

  cluster(id: number): Cluster | undefined {
    return this.byId.get(id);
  }

  /** In a line of text, a guess in brackets. */
  nameOf(id: number | null | undefined): string {
    return id === null || id === undefined ? "none" : textOf(this.titleById(id));
  }

  /** For who hears it: the very words that `Called` shows or holds unseen. */
  heardOf(id: number | null): string {
    if (id === null) return "none";
    const { name, guess } = this.titleById(id);
    return guess ? `${name}, a guess: ${guess.name}` : name;
  }

  titleById(id: number): Title {
    return titleOf(this.byId.get(id) ?? { id, name: null, guess: null });
  }

  /** Whether a cluster of any level is what was marked as noise, which counts as no cluster. */
  isNoise(cluster: Cluster): boolean {
    const of = cluster.parent ?? (cluster.children.length === 1 ? cluster.children[0] : undefined);
    return cluster.noise || (of !== undefined && this.byId.get(of)?.noise === true);
  }

  /** What a cluster of any level is called: parts and groups, by the chosen clusters that they are made of. */
  titleOf(cluster: Cluster): Title {
    if (cluster.parent !== null) {
      const parts = this.partsOf.get(cluster.parent) ?? [];
      const place = parts.findIndex(({ id }) => id === cluster.id);
      const whole = this.titleById(cluster.parent);
      return parts.length > 1 ? { name: `${whole.name}, part ${place + 1}`, guess: cluster.guess } : whole;
    }
    if (cluster.children.length > 1) return { name: `Group ${cluster.id}`, guess: cluster.guess };
    return cluster.children[0] === undefined ? titleOf(cluster) : this.titleById(cluster.children[0]);
  }

  async open(): Promise<void> {
    this.failure = null;
    try {
      const [info] = await Promise.all([api.run(), session.ready()]);
      const kept = sessionStorage.getItem(LEVEL);
      this.info = info;
      this.level = info.levels.find((known) => known === kept) ?? EDITED;
      if (info.kind === "model") return;
      await this.load();
      void this.listen();
    } catch (error) {
      this.failure = error instanceof ApiError ? error : new ApiError(String(error), 0);
    }
  }

  /** The clusters at a level; null: they are not here yet. */
  at(level: Level): Cluster[] | null {
    return level === EDITED ? this.chosen : level === this.shownLevel ? this.shown : null;
  }

  async show(level: Level): Promise<void> {
    if (level === this.level) return;
    this.level = level;
    sessionStorage.setItem(LEVEL, level);
    selectedClusters.clear();
    try {
      const answer = level === EDITED ? null : await api.clusters(level);
      if (this.level === level) [this.shown, this.shownLevel] = [answer?.clusters ?? this.chosen, level];
      if (answer?.guesses_follow) void this.guess(level);
    } catch (error) {
      notices.complain(error);
    }
  }

  /** Read everything again. What is shown stays until the new is there. */
  async refresh(): Promise<void> {
    this.info = await api.run();
    await this.load();
  }

  private async load(): Promise<void> {
    const { level } = this;
    const [chosen, shown] = await Promise.all([
      api.clusters(EDITED),
      level === EDITED ? null : api.clusters(level),
    ]);
    this.chosen = chosen.clusters;
    if (this.level === level) [this.shown, this.shownLevel] = [(shown ?? chosen).clusters, level];
    this.seen = { version: chosen.version, base: chosen.base };
    if (chosen.guesses_follow) void this.guess(EDITED);
    if (shown?.guesses_follow) void this.guess(level);
  }

  /** What the clusters may show, where it was not known yet when they came. */
  private async guess(level: Level): Promise<void> {
    try {
      const answer = await api.guesses(level);
      if (answer.version !== this.seen.version || answer.base !== this.seen.base) return; // they follow again
      const guesses = new Map(answer.guesses.map(({ id, guess }) => [id, guess]));
      const told = (clusters: Cluster[]): Cluster[] =>
        clusters.map((cluster) => ({ ...cluster, guess: guesses.get(cluster.id) ?? null }));
      if (level === EDITED) this.chosen = told(this.chosen);
      if (level === this.shownLevel) this.shown = level === EDITED ? this.chosen : told(this.shown);
    } catch (error) {
      notices.complain(error);
    }
  }

  /**
   * Make one edit, after those before it; the page then shows what the server made of it.
   *
   * Returns whether it was made; if not, the person has been told why.
   */
  edit(edit: Edit, done: string): Promise<boolean> {
    return this.edits([edit], done);
  }

  /** Make edits that are one change to the person, as `edit` makes one: they are undone and redone together. */
  private edits(edits: Edit[], done: string): Promise<boolean> {
    return this.queued(() => this.make(edits, done));
  }

  private queued(make: () => Promise<boolean>): Promise<boolean> {
    const made = this.queue.then(make);
    this.queue = made;
    return made;
  }

  private async make(edits: Edit[], done: string): Promise<boolean> {
    this.isBusy = true;
    const op = edits[0]?.op;
    const undo = op === "undo" || op === "redo" ? null : { label: "Undo", run: () => void this.undo() };
    let [seen, count]: [Version, number] = [this.seen, 0];
    try {
      for (const edit of edits) {
        seen = await api.edit(edit, seen);
        this.together = { version: seen.version, count: ++count, next: op === "undo" ? "redo" : "undo" };
      }
      await this.refresh();
      notices.say(done, undo);
      return true;
    } catch (error) {
      // Another window may have changed what this one still shows.
      await this.refresh().catch(() => undefined);
      notices.complain(error);
      if (count) notices.say("Only a part of it was done.", undo);
      return false;
    } finally {
      this.isBusy = false;
    }
  }

  async undo(): Promise<void> {
    if (this.info?.can_undo) await this.queued(() => this.make(this.asMany("undo"), "Undone."));
    else notices.say("Nothing to undo.");
  }

  async redo(): Promise<void> {
    if (this.info?.can_redo) await this.queued(() => this.make(this.asMany("redo"), "Done again."));
    else notices.say("Nothing to redo.");
  }

  /** As many of `op` as take back the last change, or bring it again. */
  private asMany(op: "undo" | "redo"): Edit[] {
    const { version, count, next } = this.together;
    const isLast = version === this.seen.version && next === op;
    return Array.from({ length: isLast ? count : 1 }, () => ({ op }));
  }

  rename(cluster: number, name: string): Promise<boolean> {
    return this.edit({ op: "rename", cluster, name }, `Renamed to “${name}”.`);
  }

  /** The guess that can be taken for a cluster's name; null: it has a name, or there is none. */
  guessFor(id: number): Guess | null {
    const cluster = this.byId.get(id);
    return cluster && this.info?.kind === "run" ? titleOf(cluster).guess : null;
  }

  /** Give a cluster the name that was guessed for it, if there is one. */
  accept(id: number): void {
    const guess = this.guessFor(id);
    if (guess && !this.isBusy) void this.rename(id, guess.name);
  }

  /** Merge clusters into one of them, which keeps its number. */
  merge(others: number[], into: number): Promise<boolean> {
    const names = others.length > 2 ? words.plural(others.length, "cluster") : others.map((id) => this.nameOf(id)).join(" and ");
    return this.edit({ op: "merge", clusters: [into, ...others] }, `Merged ${names} into ${this.nameOf(into)}.`);
  }

  /** Say of images that they are where they belong. */
  keep(ids: number[], cluster: number): Promise<boolean> {
    return this.edit({ op: "move", ids, cluster }, `Kept ${words.images(ids.length)} in ${this.nameOf(cluster)}.`);
  }

  move(ids: number[], cluster: number | null): Promise<boolean> {
    const to = cluster === null ? "a new cluster" : this.nameOf(cluster);
    return this.edit({ op: "move", ids, cluster }, `Moved ${words.images(ids.length)} to ${to}.`);
  }

  /** Move images to the clusters that they may belong to instead, given by image. */
  moveToRunnersUp(runnersUp: ReadonlyMap<number, number>): Promise<boolean> {
    const groups = [...Map.groupBy(runnersUp.keys(), (id) => runnersUp.get(id) ?? -1)];
    const [first, ...others] = groups;
    if (first && !others.length) return this.move(first[1], first[0]);
    const moves = groups.map(([cluster, ids]): Edit => ({ op: "move", ids, cluster }));
    return this.edits(moves, `Moved ${words.images(runnersUp.size)} to their runners-up.`);
  }

  noise(ids: number[]): Promise<boolean> {
    return this.edit({ op: "noise", ids }, `Marked ${words.images(ids.length)} as noise.`);
  }

  /** Edits of other windows: wait for the next, for as long as the page is open. */
  private async listen(): Promise<void> {
    const leaving = new AbortController();
    addEventListener("pagehide", () => leaving.abort(), { once: true });
    for (let pause = 1000; !leaving.signal.aborted; ) {
      try {
        const next = await api.next(this.seen, leaving.signal);
        pause = 1000;
        this.isCut = false;
        // Our own edit may be the one that was waited for: let it finish before comparing.
        await this.queue.catch(() => undefined);
        if (next.version !== this.seen.version || next.base !== this.seen.base) await this.refresh();
      } catch (error) {
        this.isCut = error instanceof ApiError && (error.status === 0 || error.status === 401);
        await new Promise((resolve) => setTimeout(resolve, pause));
        pause = Math.min(pause * 2, 30_000);
      }
    }
  }
}

export function titleOf(cluster: Called & { noise?: boolean }): Title {
  if (cluster.noise) return { name: "Noise", guess: null };
  return cluster.name === null ? { name: `Cluster ${cluster.id}`, guess: cluster.guess } : { name: cluster.name, guess: null };
}

export function textOf(title: Title): string {
  return title.guess ? `${title.name} (${title.guess.name})` : title.name;
}

export const run = new Run();
