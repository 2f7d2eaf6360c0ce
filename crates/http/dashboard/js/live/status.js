// `/api/system-status`, asked for once for the whole page: the navigation's counts and the overview read it.
import { html, signal, useEffect } from "../dom.js";
import { useResource } from "./resource.js";

export const status = signal({ data: undefined, error: null, reload: () => {} });

/** Keeps `status` fresh while it is mounted. */
export function StatusKeeper() {
  const resource = useResource("/api/system-status", { every: 3000, on: ["alert"], settle: 300 });
  useEffect(() => { status.value = resource; }, [resource.data, resource.error]);
  return html``;
}

/** Firing alerts of every severity together. */
export function firingTotal(data) {
  return Object.values(data?.alerts?.firing ?? {}).reduce((sum, n) => sum + n, 0);
}
