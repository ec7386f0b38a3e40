/** Which dialog is open; one at a time. */

export type Dialog =
  | { kind: "shortcuts" }
  | { kind: "export" }
  | { kind: "edits" }
  | { kind: "rename"; cluster: number }
  | { kind: "split"; cluster: number }
  | { kind: "move"; ids: number[] }
  | { kind: "merge"; clusters: number[] };

class Dialogs {
  open: Dialog | null = $state.raw(null);

  show(dialog: Dialog): void {
    this.open = dialog;
  }

  close(): void {
    this.open = null;
  }
}

export const dialogs = new Dialogs();
