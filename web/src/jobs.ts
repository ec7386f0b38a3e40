/** Work that the server does on its own: waited for, with its progress told. */

import { api, type Job } from "./api";

const POLL_MS = 400;

/** Resolves when the job is done; throws with its message when it failed. */
export async function finished(job: string, tell: (state: Job) => void): Promise<void> {
  for (;;) {
    const state = await api.job(job);
    tell(state);
    if (state.state === "done") return;
    if (state.state === "failed") throw new Error(state.message ?? "It failed; the terminal says why.");
    await new Promise((resolve) => setTimeout(resolve, POLL_MS));
  }
}
