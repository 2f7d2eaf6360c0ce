// Instants: the text of the wire stays machine-readable, the browser's zone and language are what is read.
import { html } from "../dom.js";
import * as format from "../format.js";
import { second } from "../live/clock.js";

/** A moment; only the time of day when it is recent, and with `brief` the day alone when it isn't. */
export function Moment({ at, brief }) {
  const ms = typeof at === "number" ? at : format.instant(at);
  if (!Number.isFinite(ms)) return html`<span class="muted">–</span>`;
  const text = brief ? format.brief(ms, second.peek()) : format.moment(ms, second.peek());
  return html`<time datetime=${new Date(ms).toISOString()} title=${`${format.dayAndClock(ms)} · ${typeof at === "string" ? at : new Date(ms).toISOString()}`}>${text}</time>`;
}

/** How long ago, ticking. */
export function Ago({ at }) {
  const ms = typeof at === "number" ? at : format.instant(at);
  if (!Number.isFinite(ms)) return html`<span class="muted">–</span>`;
  return html`<time datetime=${new Date(ms).toISOString()} title=${format.dayAndClock(ms)}>${format.ago(second.value - ms)}</time>`;
}

/** How long it lasted, or has lasted so far. */
export function Span({ from, to }) {
  const begin = format.instant(from);
  const end = to ? format.instant(to) : second.value;
  return html`<span class="nowrap">${format.duration(end - begin)}</span>`;
}
