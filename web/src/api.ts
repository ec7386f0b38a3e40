/** The server's JSON API: its types, and the requests that carry the token. */

export type Level = string;

export interface RunInfo {
  name: string;
  kind: "run" | "model";
  images: number;
  clusters: number;
  unsure: number;
  skipped: number;
  duplicates: number;
  has_labels: boolean;
  /** Stands for the places on the map; null: there is none. */
  map: string | null;
  sentence: string | null;
  created: string | null;
  backbone: string | null;
  method: string | null;
  levels: Level[];
  version: number;
  /** Digest of the clustering that edits are made on. */
  base: string;
  can_undo: boolean;
  can_redo: boolean;
  settings: Record<string, unknown>;
  /** Why no images are found by words; null: they are. */
  why_no_words: string | null;
  is_free_text: boolean;
}

/** What a cluster may show, in a word. */
export interface Guess {
  name: string;
  /** How much of it there is, and more than elsewhere, in nats. */
  strength: number;
  others: { name: string; strength: number }[];
}

/** What a cluster is called. */
export interface Called {
  id: number;
  /** That a person gave. */
  name: string | null;
  guess: Guess | null;
}

export interface Cluster extends Called {
  size: number;
  unsure: number;
  confidence: number | null;
  silhouette: number | null;
  /** null: among many clusters, they are asked for apart. */
  prototypes: number[] | null;
  majority: { label: string; share: number } | null;
  noise: boolean;
  /** At the finest level: the chosen cluster that it is a part of. */
  parent: number | null;
  /** At the coarsest: the chosen clusters in it. */
  children: number[];
}

export interface ImageRow {
  id: number;
  confidence: number;
  unsure: boolean;
  runner_up: number | null;
  duplicate: boolean;
  /** A person put it here. */
  moved: boolean;
}

export interface Neighbour {
  id: number;
  similarity: number;
  cluster: number | null;
}

export interface ImageDetail {
  id: number;
  path: string;
  /** Why it is in no cluster, if it is in none. */
  reason: string | null;
  width: number | null;
  height: number | null;
  cluster: number | null;
  confidence: number | null;
  unsure: boolean;
  moved: boolean;
  runner_up: number | null;
  silhouette: number | null;
  probabilities: { cluster: number; p: number }[];
  duplicates: number[];
  neighbours: Neighbour[];
  label: string | null;
}

export interface SearchResult {
  cluster: number;
  confidence: number;
  unknown: boolean;
  runner_up: number | null;
  /** The clusters that it speaks of: of a model, the page knows no others. */
  called: Called[];
  neighbours: Neighbour[];
}

export interface Fitting {
  id: number;
  score: number;
  cluster: number;
}

export interface FoundByWords {
  total: number;
  images: Fitting[];
  notes: string[];
  unknown: { text: string; near: string[] }[];
}

export interface Evidence {
  choose_k: Record<string, number | boolean | null>[];
  sentence: string | null;
  metrics: Record<string, unknown> | null;
  skipped: { path: string; reason: string }[];
  skipped_total: number;
  skipped_reasons: { reason: string; count: number }[];
  duplicates: number[][];
  duplicates_total: number;
  /** Of the clusters as they are now; the silhouette of the images whose clusters no correction has changed. */
  quality: {
    images: number;
    confidence: number;
    confidence_histogram: number[];
    silhouette: number | null;
    silhouette_images: number;
    unsure: number;
    moved: number;
  };
  stages: Record<string, { seconds: number | null; facts: Record<string, unknown> | null }>;
}

export interface EditLine {
  n: number;
  op: string;
  ids_count: number;
  clusters: number[];
  names: string[];
  time: string;
  undone: boolean;
  /** Its numbers are those of another clustering than the run has now. */
  earlier: boolean;
  conflict: string | null;
}

export type Edit =
  | { op: "rename"; cluster: number; name: string }
  | { op: "merge"; clusters: number[] }
  | { op: "split"; cluster: number; token: string }
  | { op: "move"; ids: number[]; cluster: number | null }
  | { op: "noise"; ids: number[] }
  | { op: "undo" }
  | { op: "redo" };

export interface SplitPreview {
  parts: { size: number; prototypes: number[]; guess: Guess | null }[];
  token: string;
}

export interface Job {
  state: "running" | "done" | "failed";
  progress: number | null;
  message: string | null;
  /** The name of what can be downloaded, once it is done. */
  file: string | null;
}

/** Which state of the run an answer speaks of, and an edit is made on. */
export interface Version {
  version: number;
  base: string;
}

/** A window of the map, in the map's own units. */
export interface Box {
  west: number;
  south: number;
  east: number;
  north: number;
}

/** Images in a window of the map: all of them, or as many as are shown at once. */
export interface MapPart {
  ids: Int32Array;
  x: Float32Array;
  y: Float32Array;
  cluster: Int32Array;
  /** How many images there are. */
  total: number;
  /** The version that `cluster` is of. */
  version: number;
  /** Around all of the map. */
  around: Box;
}

export interface MapChanges {
  ids: Int32Array;
  cluster: Int32Array;
  version: number;
}

/** What the server, or the way to it, has to say against a request. `status` 0: it could not be reached. */
export class ApiError extends Error {
  constructor(
    message: string,
    readonly status: number,
  ) {
    super(message);
  }
}

const TOKEN = "shoal-token";

class Session {
  private token = sessionStorage.getItem(TOKEN) ?? "";
  private cookie: Promise<void> | null = null;

  /** The address that `shoal browse` opens ends in #token=…: keep it for this tab, and take it out of the bar. */
  takeTokenFromAddress(): void {
    const found = /^#(?:.*&)?token=([^&]+)/.exec(location.hash);
    if (!found?.[1]) return;
    this.token = decodeURIComponent(found[1]);
    sessionStorage.setItem(TOKEN, this.token);
    history.replaceState(null, "", location.pathname + location.search);
  }

  headers(): Record<string, string> {
    return { "X-Shoal-Token": this.token };
  }

  /** Pictures cannot carry a header: the server sets a cookie for them, once. */
  ready(): Promise<void> {
    this.cookie ??= request("session").then(
      () => undefined,
      (error: unknown) => {
        this.cookie = null;
        throw error;
      },
    );
    return this.cookie;
  }
}

export const session = new Session();

async function request(path: string, options: RequestInit = {}): Promise<Response> {
  let response: Response;
  try {
    const headers = { ...session.headers(), ...(options.headers as Record<string, string> | undefined) };
    response = await fetch(`api/${path}`, { ...options, headers });
  } catch (error) {
    if (error instanceof DOMException && error.name === "AbortError") throw error;
    throw new ApiError("The server does not answer. Is shoal browse still running?", 0);
  }
  if (response.ok) return response;
  throw new ApiError(await complaint(response), response.status);
}

async function complaint(response: Response): Promise<string> {
  try {
    const body = (await response.json()) as { error?: unknown };
    if (typeof body.error === "string") return body.error;
  } catch {
    // Not JSON: the status has to do.
  }
  return `The server answered ${response.status} ${response.statusText}`.trim();
}

/** Numbers as the server sends them are little-endian, as every browser of today has them. */
function check(bytes: ArrayBuffer, expected: number): void {
  if (bytes.byteLength !== expected) throw new ApiError("The map came incomplete. Load it again.", 0);
}

async function get<T>(path: string, signal?: AbortSignal): Promise<T> {
  return (await request(path, { signal: signal ?? null })).json() as Promise<T>;
}

async function post<T>(path: string, body: unknown): Promise<T> {
  const response = await request(path, {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify(body),
  });
  return response.json() as Promise<T>;
}

export interface ImageQuery {
  level: Level;
  order: "surest" | "least_sure";
  only: "all" | "sure" | "unsure";
}

export const api = {
  run: () => get<RunInfo>("run"),
  clusters: (level: Level) =>
    get<Version & { clusters: Cluster[]; guesses_follow: boolean }>(`clusters?level=${encodeURIComponent(level)}`),
  /** All guesses of a level; of many images it takes seconds to make them. */
  guesses: (level: Level) =>
    get<Version & { guesses: { id: number; guess: Guess }[] }>(`guesses?level=${encodeURIComponent(level)}`),
  prototypes: (level: Level, of: number[]) =>
    get<{ clusters: { id: number; prototypes: number[] }[] }>(
      "prototypes?" + new URLSearchParams({ level, of: of.join(",") }).toString(),
    ),
  clusterImages: (cluster: number, query: ImageQuery, offset: number, limit: number) =>
    get<{ total: number; images: ImageRow[] }>(
      `clusters/${cluster}/images?` +
        new URLSearchParams({ ...query, offset: String(offset), limit: String(limit) }).toString(),
    ),
  image: (id: number) => get<ImageDetail>(`images/${id}`),
  evidence: () => get<Evidence>("evidence"),
  /** Why the server gives no full picture of an image; null: it does. */
  whyNotFull: (id: number) =>
    request(`images/${id}/full`).then(
      () => null,
      (error: unknown) => (error instanceof ApiError ? error.message : String(error)),
    ),
  edits: () => get<{ version: number; edits: EditLine[] }>("edits"),
  edit: (edit: Edit, seen: Version) =>
    post<Version & { changed: number[] }>("edits", { ...edit, base_version: seen.version, base: seen.base }),
  splitPreview: (cluster: number, parts: number) => post<SplitPreview>("split/preview", { cluster, parts }),
  refit: (seen: Version) => post<{ job: string }>("refit", { base_version: seen.version, base: seen.base }),
  export: (kind: string, layout: string | null) =>
    post<{ job: string }>("export", layout ? { kind, layout } : { kind }),
  job: (job: string) => get<Job>(`jobs/${encodeURIComponent(job)}`),

  async search(image: Blob): Promise<SearchResult> {
    const form = new FormData();
    form.append("image", image, image instanceof File ? image.name : "pasted");
    return (await request("search", { method: "POST", body: form })).json() as Promise<SearchResult>;
  },

  find: (words: string, offset: number, limit: number) =>
    get<FoundByWords>("find?" + new URLSearchParams({ words, offset: String(offset), limit: String(limit) }).toString()),

  /** What of the map is in a window, or of one cluster there. */
  async map(window: Box | null, cluster: number | null, signal: AbortSignal): Promise<MapPart> {
    const asked = new URLSearchParams();
    for (const [edge, value] of Object.entries(window ?? {})) asked.set(edge, String(value));
    if (cluster !== null) asked.set("cluster", String(cluster));
    const bytes = await (await request(`map?${asked.toString()}`, { signal })).arrayBuffer();
    const [n = 0, total = 0, version = 0] = new Uint32Array(bytes.slice(0, 12));
    const [west = 0, south = 0, east = 0, north = 0] = new Float32Array(bytes.slice(12, 28));
    check(bytes, 28 + 16 * n);
    return {
      ids: new Int32Array(bytes, 28, n),
      x: new Float32Array(bytes, 28 + 4 * n, n),
      y: new Float32Array(bytes, 28 + 8 * n, n),
      cluster: new Int32Array(bytes, 28 + 12 * n, n),
      total,
      version,
      around: { west, south, east, north },
    };
  },

  /** Which images are in another cluster than at version `since`. */
  async mapChanges(since: number, base: string): Promise<MapChanges> {
    const asked = new URLSearchParams({ since: String(since), base }).toString();
    const bytes = await (await request(`map/changes?${asked}`)).arrayBuffer();
    const [n = 0, version = 0] = new Uint32Array(bytes.slice(0, 8));
    check(bytes, 8 + 8 * n);
    return { ids: new Int32Array(bytes, 8, n), cluster: new Int32Array(bytes, 8 + 4 * n, n), version };
  },

  /** All images of the map inside a polygon, of a cluster, or both. */
  async mapInside(polygon: readonly (readonly [number, number])[] | null, cluster: number | null): Promise<Int32Array> {
    const options = { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify({ polygon, cluster }) };
    const bytes = await (await request("map/inside", options)).arrayBuffer();
    const [n = 0] = new Uint32Array(bytes.slice(0, 4));
    check(bytes, 4 + 4 * n);
    return new Int32Array(bytes, 4, n);
  },

  /** Answers when the run is in another state than `seen`, or after half a minute. */
  next: (seen: Version, signal: AbortSignal) =>
    get<Version>(`events?since=${seen.version}&base=${encodeURIComponent(seen.base)}`, signal),
};

export type ThumbSize = 96 | 192 | 384;

export function thumbUrl(id: number, size: ThumbSize): string {
  return `api/images/${id}/thumb?size=${size}`;
}

/** What the browser downloads itself: an export may be larger than memory. */
export function fileUrl(job: string): string {
  return `api/jobs/${encodeURIComponent(job)}/file`;
}

export function fullUrl(id: number): string {
  return `api/images/${id}/full`;
}
