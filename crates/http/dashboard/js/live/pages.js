// A list of the API that goes on page by page: the first page is kept fresh, further ones are fetched on demand and
// dropped when the filter changes.
import { useSignal } from "../dom.js";
import { get } from "../api.js";
import { useResource } from "./resource.js";

/**
 * `field` names the array in the answer, `idOf` tells its rows apart, `limit` bounds how many are kept. `options` as for
 * `useResource`. Returns the resource of the first page with `rows`, and `more`: { available, loading, error, load }.
 */
export function usePages(path, field, query, { idOf, limit, ...options }) {
  const first = useResource(path, { query, ...options });
  const key = JSON.stringify(query);
  const state = useSignal({});
  const further = state.value.key === key ? state.value : { key, rows: [], cursor: undefined, loading: false, error: null };
  const cursor = further.cursor === undefined ? first.data?.next_cursor : further.cursor;
  const load = async () => {
    state.value = { ...further, loading: true };
    try {
      const page = await get(path, { ...query, cursor });
      state.value = { key, rows: [...further.rows, ...page[field]], cursor: page.next_cursor ?? null, loading: false, error: null };
    } catch (error) {
      state.value = { ...further, loading: false, error };
    }
  };
  const rows = joined(first.data?.[field] ?? [], further.rows, idOf).slice(0, limit);
  return { ...first, rows, more: { available: Boolean(cursor) && rows.length < limit, loading: further.loading, error: further.error, load } };
}

/** First page and further ones; the first is the fresher where they overlap. */
function joined(first, further, idOf) {
  if (further.length === 0) return first;
  const had = new Set(first.map(idOf));
  return [...first, ...further.filter((row) => !had.has(idOf(row)))];
}
