/** Which view the address names: #/clusters, #/cluster/7, #/cluster/7/fine, #/image/42, #/map, #/search, #/search/WORDS, #/evidence, #/evidence/skipped. */

export type View = "clusters" | "cluster" | "map" | "image" | "search" | "evidence";

const VIEWS: readonly View[] = ["clusters", "cluster", "map", "image", "search", "evidence"];

class Route {
  view: View = $state("clusters");
  id: number = $state(-1);
  /** Of the cluster; null: the level that is edited. */
  level: string | null = $state(null);
  /** Of the view: what is to be seen first, or the words to look for. */
  section: string | null = $state(null);
  /** Whether the page itself came here from another of its views, so that going back stays within it. */
  private inside = 0;

  start(): void {
    this.read();
    addEventListener("hashchange", () => {
      this.inside += 1;
      this.read();
    });
  }

  private read(): void {
    const [view, id, level] = location.hash.replace(/^#\/?/, "").split("/");
    this.view = VIEWS.find((known) => known === view) ?? "clusters";
    const number = this.view === "search" ? Number.NaN : Number.parseInt(id ?? "", 10);
    this.id = Number.isNaN(number) ? -1 : number;
    this.section = Number.isNaN(number) && id ? decoded(id) : null;
    this.level = level || null;
  }

  go(view: View, id?: number | string | undefined): void {
    location.hash = href(view, id);
  }

  back(): void {
    if (this.inside > 0) history.back();
    else this.go("clusters");
  }
}

export function href(view: View, id?: number | string | undefined): string {
  return id === undefined ? `#/${view}` : `#/${view}/${encodeURIComponent(id)}`;
}

/** What somebody typed into the address may be no code. */
function decoded(part: string): string {
  try {
    return decodeURIComponent(part);
  } catch {
    return part;
  }
}

export const route = new Route();
