/** Light, dark, or as the system has it. */

export type ThemeChoice = "system" | "light" | "dark";

const KEY = "shoal-theme";
const ORDER: readonly ThemeChoice[] = ["system", "light", "dark"];

class Theme {
  choice: ThemeChoice = $state("system");
  private system = matchMedia("(prefers-color-scheme: dark)");
  private systemIsDark = $state(false);

  constructor() {
    this.systemIsDark = this.system.matches;
    this.system.addEventListener("change", (event) => (this.systemIsDark = event.matches));
    const kept = localStorage.getItem(KEY);
    this.set(ORDER.find((known) => known === kept) ?? "system");
  }

  get isDark(): boolean {
    return this.choice === "dark" || (this.choice === "system" && this.systemIsDark);
  }

  next(): void {
    this.set(ORDER[(ORDER.indexOf(this.choice) + 1) % ORDER.length] ?? "system");
  }

  private set(choice: ThemeChoice): void {
    this.choice = choice;
    localStorage.setItem(KEY, choice);
    document.documentElement.dataset["theme"] = choice;
  }
}

export const theme = new Theme();
