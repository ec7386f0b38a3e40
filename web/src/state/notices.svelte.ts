/** Short messages at the edge of the page, read out by screen readers. */

export interface Notice {
  key: number;
  text: string;
  isError: boolean;
  action: { label: string; run: () => void } | null;
}

const SECONDS = 7;

class Notices {
  shown: Notice[] = $state([]);
  private next = 0;

  say(text: string, action: Notice["action"] = null): void {
    this.add(text, false, action);
  }

  complain(error: unknown): void {
    this.add(error instanceof Error ? error.message : String(error), true, null);
  }

  dismiss(key: number): void {
    this.shown = this.shown.filter((notice) => notice.key !== key);
  }

  private add(text: string, isError: boolean, action: Notice["action"]): void {
    const key = this.next++;
    // A new message takes the place of the last ones: a stack of them would cover what they are about.
    this.shown = [...this.shown.filter((notice) => notice.isError).slice(-1), { key, text, isError, action }];
    setTimeout(() => this.dismiss(key), (isError ? 2 : 1) * SECONDS * 1000);
  }
}

export const notices = new Notices();
