// What this browser remembers. Storage may be refused or full: then the choice lasts until the page is left.
const PREFIX = "farol.";

export function remembered(name) {
  try {
    return localStorage.getItem(PREFIX + name);
  } catch {
    return null;
  }
}

export function remember(name, value) {
  try {
    if (value === null) localStorage.removeItem(PREFIX + name);
    else localStorage.setItem(PREFIX + name, value);
  } catch {
    // Nothing to do: the choice holds for this page only.
  }
}
