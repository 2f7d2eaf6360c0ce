// Sensors: search, filter, order, page by page, each row following the stream.
import { html, useEffect, useMemo, useRef, useSignal } from "../dom.js";
import * as format from "../format.js";
import { t, word } from "../i18n.js";
import { useLatest } from "../live/latest.js";
import { useResource } from "../live/resource.js";
import { status } from "../live/status.js";
import { listen } from "../live/stream.js";
import { FirstReading } from "../parts/first-reading.js";
import { Level } from "../parts/icons.js";
import { PageHead, useDebounced } from "../parts/shell.js";
import { Spark } from "../parts/spark.js";
import { Failure, Nothing, Waiting } from "../parts/states.js";
import { Table } from "../parts/table.js";
import { Ago } from "../parts/time.js";
import { link, route, setQuery } from "../router.js";

const PAGE_SIZE = 100;
const TYPES = ["temperature", "vibration", "energy", "humidity", "pressure"];
const STATES = ["normal", "info", "warning", "error", "critical", "stale"];
/** How many ids are remembered as "not on this page", so that each makes the page ask only once. */
const OTHERS_LIMIT = 5000;

export function SensorsPage() {
  const { query } = route.value;
  const typed = useSignal(query.search ?? "");
  const search = useDebounced(typed.value.trim(), 250);
  const cursors = useSignal([null]);
  const filter = { search, type: query.type, state: query.state, sort: query.sort ?? "id" };
  const filterKey = JSON.stringify(filter);
  const settledKey = useRef(filterKey);
  if (settledKey.current !== filterKey) {
    // Another filter starts at its first page, in the same drawing.
    settledKey.current = filterKey;
    cursors.value = [null];
  }
  useEffect(() => { if ((query.search ?? "") !== search) setQuery({ ...route.peek().query, search }); }, [search]);
  const cursor = cursors.value.at(-1);
  const list = useResource("/api/sensors", { query: { ...filter, limit: PAGE_SIZE, cursor }, every: 5000, on: ["alert"], settle: 500 });
  const rows = list.data?.sensors ?? [];
  useNewSensors(rows, list, filterKey);
  const types = useTypes(rows);
  const filtered = Boolean(search || query.type || query.state);
  const change = (field) => (event) => setQuery({ ...route.peek().query, [field]: event.currentTarget.value });
  const none = list.data && list.data.total === 0 && !filtered && !status.value.data?.sensors.total;

  return html`<div class="page">
    <${PageHead} title=${t("nav.sensors")}><span class="muted" data-testid="sensors-found">${list.data && t("sensors.found", { n: format.integer(list.data.total) })}</span><//>
    ${!none && html`<form class="filters" role="search" onSubmit=${(event) => event.preventDefault()}>
      <label class="field grow"><span>${t("sensors.search")} <kbd class="low">/</kbd></span>
        <input class="input" type="search" data-testid="sensor-search" data-slash value=${typed.value} placeholder=${t("sensors.searchHint")} onInput=${(event) => { typed.value = event.currentTarget.value; }} /></label>
      <label class="field"><span>${t("sensors.col.type")}</span>
        <select class="input" data-testid="sensor-type-filter" value=${query.type ?? ""} onChange=${change("type")}>
          <option value="">${t("filter.any")}</option>${types.map((type) => html`<option key=${type} value=${type}>${word("type", type)}</option>`)}
        </select></label>
      <label class="field"><span>${t("sensors.col.state")}</span>
        <select class="input" data-testid="sensor-state-filter" value=${query.state ?? ""} onChange=${change("state")}>
          <option value="">${t("filter.any")}</option>${STATES.map((state) => html`<option key=${state} value=${state}>${word("level", state)}</option>`)}
        </select></label>
      ${filtered && html`<button type="button" class="button" data-testid="clear-filters" onClick=${() => { typed.value = ""; setQuery({ sort: query.sort }); }}>${t("filter.clear")}</button>`}
    </form>`}
    <${Failure} resource=${list} />
    ${none && html`<${FirstReading} />`}
    ${!none && html`<section class="panel long" aria-label=${t("nav.sensors")} aria-busy=${list.loading}>
      ${!list.data && !list.error && html`<${Waiting} />`}
      ${list.data && rows.length === 0 && html`<${Nothing}>${t("sensors.noneFound")}<//>`}
      ${rows.length > 0 && html`<${SensorTable} rows=${rows} sort=${filter.sort} />
        <${Pager} cursors=${cursors} page=${list.data} shown=${rows.length} />`}
    </section>`}
  </div>`;
}

function SensorTable({ rows, sort }) {
  const columns = [
    { key: "id", sort: "id", className: "lead", render: (s) => html`<a class="id" title=${s.sensor_id} href=${link(["sensors", s.sensor_id])}>${s.sensor_id}</a>` },
    { key: "type", sort: "type", className: "bare", render: (s) => word("type", s.sensor_type) },
    { key: "value", sort: "value", num: true, className: "bare", render: (s) => html`<${LiveValue} sensor=${s} />` },
    { key: "trend", className: "spark-cell bare", render: (s) => html`<${LiveSpark} sensor=${s} />` },
    { key: "state", sort: "state", className: "bare", render: (s) => html`<${Level} level=${s.state} testid="sensor-state" />` },
    { key: "firing", num: true, className: "low", render: (s) => (s.firing ? html`<a href=${link(["alerts"], { status: "firing", source: s.sensor_id })}>${format.integer(s.firing)}</a>` : html`<span class="muted">0</span>`) },
    { key: "place", className: "low mid", render: (s) => html`<span class="muted small break">${place(s.location)}</span>` },
    { key: "readings", num: true, className: "low mid", render: (s) => format.compact(s.readings) },
    { key: "seen", sort: "last_seen", num: true, render: (s) => html`<${LiveSeen} sensor=${s} />` },
  ].map((column) => ({ ...column, label: t(`sensors.col.${column.key}`) }));
  return html`<${Table} caption=${t("nav.sensors")} columns=${columns} rows=${rows} rowKey=${(s) => s.sensor_id} sort=${sort} testid="sensor-table"
    onSort=${(next) => setQuery({ ...route.peek().query, sort: next })}
    rowProps=${(s) => ({ href: link(["sensors", s.sensor_id]), "data-testid": "sensor-row", "data-sensor-id": s.sensor_id, "data-state": s.state })} />`;
}

export function place(location) {
  return [location?.factory_section, location?.machine_id, location?.zone].filter(Boolean).join(" · ");
}

// A component per cell, so that a reading redraws a number and a line instead of the table.
function LiveValue({ sensor }) {
  const { value } = useLatest(sensor).value;
  return html`<span class="strong" data-testid="sensor-value" data-value=${value}>${format.quantity(value, sensor.unit)}</span>`;
}

function LiveSpark({ sensor }) {
  return html`<${Spark} values=${useLatest(sensor).value.recent} />`;
}

function LiveSeen({ sensor }) {
  return html`<span class="muted"><${Ago} at=${useLatest(sensor).value.seen} /></span>`;
}

function Pager({ cursors, page, shown }) {
  const before = (cursors.value.length - 1) * PAGE_SIZE;
  return html`<div class="table-foot">
    <span data-testid="page-range">${t("page.range", { from: format.integer(before + 1), to: format.integer(before + shown), total: format.integer(page.total) })}</span>
    <span class="end">
      <button type="button" class="button" data-testid="page-previous" disabled=${cursors.value.length === 1} onClick=${() => { cursors.value = cursors.value.slice(0, -1); }}>${t("page.previous")}</button>
      <button type="button" class="button" data-testid="page-next" disabled=${!page.next_cursor} onClick=${() => { cursors.value = [...cursors.value, page.next_cursor]; }}>${t("page.next")}</button>
    </span></div>`;
}

/** A sensor that the stream names and the page doesn't hold makes the page ask once: it may belong here. */
function useNewSensors(rows, list, filterKey) {
  const others = useMemo(() => new Set(), [filterKey]);
  const state = useRef({});
  state.current = { rows, others, reload: list.reload };
  useEffect(() => {
    let timer = 0;
    const stop = listen("reading", (messages) => {
      const { rows: held, others: known } = state.current;
      if (held.length >= PAGE_SIZE || known.size >= OTHERS_LIMIT) return;
      const ids = new Set(held.map((row) => row.sensor_id));
      let found = false;
      for (const message of messages) {
        for (const { sensor_id: id } of message.readings) {
          if (ids.has(id) || known.has(id)) continue;
          if (known.size < OTHERS_LIMIT) known.add(id);
          found = true;
        }
      }
      // Twice: the view may still be on its way to the reading that the stream brought.
      if (found && !timer) {
        timer = setTimeout(() => {
          state.current.reload();
          timer = setTimeout(() => { timer = 0; state.current.reload(); }, 700);
        }, 150);
      }
    });
    return () => { stop(); clearTimeout(timer); };
  }, []);
}

/** The types to choose from: the usual ones and those that were seen on this visit. */
function useTypes(rows) {
  const seen = useMemo(() => new Set(TYPES), []);
  for (const row of rows) if (seen.size < 100) seen.add(row.sensor_type);
  if (route.value.query.type) seen.add(route.value.query.type);
  return [...seen].sort();
}
