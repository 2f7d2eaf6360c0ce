// Hash routes: `#/sensors/temp-1?range=1h`. The server never sees them.
import { signal } from "./dom.js";

function parse(hash) {
  const [path, search = ""] = hash.replace(/^#/, "").split("?", 2);
  const parts = path.split("/").filter(Boolean).map(decode);
  return { page: parts[0] ?? "", id: parts[1] ?? null, query: Object.fromEntries(new URLSearchParams(search)) };
}

function decode(part) {
  try {
    return decodeURIComponent(part);
  } catch {
    return part;
  }
}

export const route = signal(parse(location.hash));

export function startRouter() {
  addEventListener("hashchange", () => { route.value = parse(location.hash); });
}

/** The href of a page: `link(["sensors", id], { range: "1h" })`. Empty values are left out. */
export function link(parts, query = {}) {
  const path = parts.map(encodeURIComponent).join("/");
  const kept = Object.entries(query).filter(([, value]) => value !== undefined && value !== null && value !== "");
  const search = new URLSearchParams(kept).toString();
  return `#/${path}${search ? `?${search}` : ""}`;
}

export function go(href) {
  location.hash = href;
}

/** Replaces the query of the current page without an entry in the history (filters while typing). */
export function setQuery(query) {
  const { page, id } = route.value;
  const href = link([page, id].filter((part) => part !== null && part !== ""), query);
  history.replaceState(null, "", href);
  route.value = parse(href);
}
