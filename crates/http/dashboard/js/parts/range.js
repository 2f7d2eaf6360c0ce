// The choice of a range of time over a chart; it stands in the address.
import { html, useSignal } from "../dom.js";
import * as format from "../format.js";
import { t } from "../i18n.js";
import { serverNow } from "../live/clock.js";
import { route, setQuery } from "../router.js";

const MINUTE = 60e3;
const SPANS = { "15m": 15 * MINUTE, "1h": 60 * MINUTE, "6h": 6 * 60 * MINUTE, "24h": 24 * 60 * MINUTE, "7d": 7 * 24 * 60 * MINUTE };

/** `fitting()` names the range when the address doesn't; `all()` is what the range of that name is; `id` is whose chart it is. */
export function useRange(id, fitting, all) {
  const { query } = route.value;
  const fits = useSignal(null);
  if (fits.value === null) fits.value = fitting();
  const name = query.range ?? fits.value;
  const choosing = useSignal(name === "custom");
  // Kept while the name stays: a sliding window moves by itself, "all" grows by itself.
  const kept = useSignal({ key: null, range: null });
  const key = `${id} ${name} ${query.from ?? ""} ${query.to ?? ""}`;
  if (kept.value.key !== key) kept.value = { key, range: rangeOf(name, query, all) };
  const range = kept.value.range;
  const choose = (next) => {
    choosing.value = next === "custom";
    setQuery(next === "custom" ? { range: "custom", from: new Date(range.from).toISOString(), to: new Date(range.to).toISOString() } : { range: next });
  };
  return { name, range, choosing: choosing.value, choose };
}

function rangeOf(name, query, all) {
  if (name in SPANS) {
    const now = serverNow();
    return { from: now - SPANS[name], to: now, span: SPANS[name], sliding: true };
  }
  const from = format.instant(query.from);
  const to = format.instant(query.to);
  return name === "custom" && from < to ? { from, to } : all();
}

export function RangeButtons({ names, chosen }) {
  return html`<div class="segments" role="group" aria-label=${t("chart.range")}>
    ${names.map((each) => html`<button key=${each} type="button" class="button" aria-pressed=${each === chosen.name} data-testid="range" data-range=${each} onClick=${() => chosen.choose(each)}>${t(`range.${each}`)}</button>`)}</div>`;
}

export function CustomRange({ range }) {
  const from = useSignal(format.toLocalInput(range.from));
  const to = useSignal(format.toLocalInput(range.to));
  const bad = !(format.fromLocalInput(from.value) < format.fromLocalInput(to.value));
  const apply = (event) => {
    event.preventDefault();
    if (!bad) setQuery({ range: "custom", from: new Date(format.fromLocalInput(from.value)).toISOString(), to: new Date(format.fromLocalInput(to.value)).toISOString() });
  };
  const input = (label, bound, testid) => html`<label class="field time"><span>${label}</span><input class="input" type="datetime-local" step="1" data-testid=${testid} value=${bound.value} aria-invalid=${bad} onInput=${(event) => { bound.value = event.currentTarget.value; }} /></label>`;
  return html`<form class="filters custom-range" onSubmit=${apply}>
    ${input(t("filter.from"), from, "range-from")}${input(t("filter.to"), to, "range-to")}
    <button type="submit" class="button" disabled=${bad} data-testid="range-apply">${t("action.apply")}</button></form>`;
}
