// Light or dark: the system's wish until somebody chooses; `theme` is what is shown.
import { effect, signal } from "./dom.js";
import { remember, remembered } from "./prefs.js";

const systemDark = matchMedia("(prefers-color-scheme: dark)");
const chosen = signal(["light", "dark"].includes(remembered("theme")) ? remembered("theme") : null);
const system = signal(systemDark.matches ? "dark" : "light");
const printing = signal(false);

export const theme = signal(document.documentElement.dataset.theme);

export function toggleTheme() {
  const next = theme.value === "dark" ? "light" : "dark";
  // Choosing what the system wishes anyway means following it again.
  chosen.value = next === system.value ? null : next;
  remember("theme", chosen.value);
}

export function startTheme() {
  systemDark.addEventListener("change", () => { system.value = systemDark.matches ? "dark" : "light"; });
  addEventListener("beforeprint", () => { printing.value = true; });
  addEventListener("afterprint", () => { printing.value = false; });
  effect(() => {
    const shown = printing.value ? "light" : chosen.value ?? system.value;
    // The attribute first: whoever follows `theme` reads the colours that it brings.
    document.documentElement.dataset.theme = shown;
    theme.value = shown;
  });
}

/** The value of a design token as the browser resolves it now, for drawing on a canvas. */
export function token(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
}
