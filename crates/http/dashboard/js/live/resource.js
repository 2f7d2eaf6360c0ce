// What a page asked the API for, kept fresh: polled while the page is visible, asked again when the stream says that
// something moved. Old data stays on the page while new data is on its way, and after an error.
import { useEffect, useRef, useSignal } from "../dom.js";
import { get } from "../api.js";
import { listen, suspect } from "./stream.js";

/**
 * `path` null asks for nothing. Options: `query`, `every` (ms between polls, 0 = never), `on` (kinds of the stream that
 * make it ask again), `only` (which of their messages do), `settle` (ms to wait after such a message, so that a burst
 * costs one request).
 */
export function useResource(path, { query = {}, every = 0, on = [], only = () => true, settle = 200 } = {}) {
  const state = useSignal({ data: undefined, error: null, loading: true, key: null });
  const reload = useRef(() => {});
  const key = path === null ? null : `${path}?${JSON.stringify(query)}`;

  useEffect(() => {
    if (path === null) return undefined;
    const loop = new Loop(state, key, (signal) => get(path, query, signal), every);
    reload.current = () => loop.now();
    const stops = on.map((kind) => listen(kind, (messages) => { if (messages.some(only)) loop.soon(settle); }));
    stops.push(listen("refetch", () => loop.soon(settle)));
    document.addEventListener("visibilitychange", loop.visible);
    loop.now();
    return () => {
      stops.forEach((stop) => stop());
      document.removeEventListener("visibilitychange", loop.visible);
      loop.end();
    };
  }, [key, every]);

  const { data, error, loading } = state.value;
  return {
    data, error,
    loading: loading || (key !== null && state.value.key !== key),
    reload: () => reload.current(),
    /** Changes what is shown until the next answer, for messages that already carry the new content. */
    mutate: (change) => {
      const current = state.peek();
      if (current.data !== undefined) state.value = { ...current, data: change(current.data) };
    },
  };
}

class Loop {
  constructor(state, key, ask, every) {
    Object.assign(this, { state, key, ask, every, timer: 0, settled: 0, busy: false, again: false, aborter: new AbortController() });
    this.visible = () => { if (!document.hidden && this.every) this.now(); };
  }

  soon(wait) {
    if (this.settled) return;
    this.settled = setTimeout(() => { this.settled = 0; this.now(); }, wait);
  }

  async now() {
    if (this.busy) {
      this.again = true;
      return;
    }
    this.busy = true;
    clearTimeout(this.timer);
    try {
      const data = await this.ask(this.aborter.signal);
      if (this.aborter.signal.aborted) return;
      this.state.value = { data, error: null, loading: false, key: this.key };
    } catch (error) {
      if (this.aborter.signal.aborted) return;
      if (error.status === 0) suspect();
      this.state.value = { ...this.state.peek(), error, loading: false, key: this.key };
    }
    this.busy = false;
    if (this.again) {
      this.again = false;
      this.soon(50);
    }
    if (this.every && !document.hidden) this.timer = setTimeout(() => this.now(), this.every);
  }

  end() {
    this.aborter.abort();
    clearTimeout(this.timer);
    clearTimeout(this.settled);
  }
}
