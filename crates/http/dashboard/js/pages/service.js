// One service: how it is and why, its metrics over time, checks, alerts, the policies in front of it, and what can be done to it.
import { html, useEffect, useRef, useSignal } from "../dom.js";
import { get } from "../api.js";
import { LinesChart } from "../chart/lines.js";
import * as format from "../format.js";
import { known, t, word } from "../i18n.js";
import { second, serverNow } from "../live/clock.js";
import { useResource } from "../live/resource.js";
import { useMeasured, useMoves, withMeasured, withMetrics } from "../live/services.js";
import { listen } from "../live/stream.js";
import { AlertRows } from "../parts/alert-rows.js";
import { ServiceState } from "../parts/icons.js";
import { Policies } from "../parts/policies.js";
import { CustomRange, RangeButtons, useRange } from "../parts/range.js";
import { MaintenanceControl, SimulationPanel } from "../parts/service-controls.js";
import { reasonOf, said } from "../parts/sentences.js";
import { factOf, memoryText, metricText, metricTitle } from "../parts/service-values.js";
import { PageHead } from "../parts/shell.js";
import { FactRow, Failure, Nothing, Panel, Waiting } from "../parts/states.js";
import { Table } from "../parts/table.js";
import { Ago, Moment } from "../parts/time.js";
import { link } from "../router.js";

const HOUR = 3600e3;
/** The API keeps points for six hours. */
const RANGES = ["15m", "1h", "6h", "custom"];
const CHARTS_SHOWN = 16;
const CHANGES_LIMIT = 500;
/** Charts in this order, then those of other metrics by name. How long something runs needs no chart. */
const ORDER = ["response_time_ms", "error_rate_percent", "requests_per_second", "cpu_percent", "memory_percent", "memory_bytes", "disk_percent", "network_received_bytes_per_second", "network_sent_bytes_per_second"];
const UNDRAWN = new Set(["uptime_seconds"]);

export function ServicePage({ id }) {
  const path = `/api/services/${encodeURIComponent(id)}`;
  const resource = useResource(path, { every: 10000, on: ["alert"], settle: 400 });
  const about = useResource("/api/resilience/changes", { query: { service: id, limit: CHANGES_LIMIT }, every: 30000 });
  const own = useResource("/api/resilience/changes", { query: { caller: id, limit: CHANGES_LIMIT }, every: 30000 });
  const concerns = (event) => event.source === id || event.data?.caller === id || event.data?.service === id;
  useMoves([resource, about, own], concerns);
  useMeasured((events) => {
    const mine = events.filter(concerns);
    if (mine.length === 0) return;
    // An unknown service may become known.
    if (resource.error?.status === 404) return resource.reload();
    resource.mutate((data) => ({ ...data, service: withMetrics(data.service, mine), policies: withMeasured(data.policies, mine) }));
  });
  const changes = newestFirst([...(about.data?.changes ?? []), ...(own.data?.changes ?? [])]);
  const complete = !about.data?.next_cursor && !own.data?.next_cursor;
  // A service may be called by others, under policies that they tell of, and have told nothing of itself.
  const unknown = resource.error?.status === 404;
  const guards = useResource(unknown ? "/api/resilience" : null, { query: { service: id }, every: 10000 });
  const back = html`<a class="back" href="#/services">${t("nav.services")}</a><span class="muted" aria-hidden="true">/</span>`;
  if (!resource.data) {
    return html`<div class="page"><${PageHead} title=${id} before=${back} />
      ${unknown ? html`<p class="banner info" data-testid="not-found">${t("service.untold")}</p>` : html`<${Failure} resource=${resource} />`}
      ${unknown && html`<${Guards} policies=${guards.data?.policies ?? []} changes=${changes} complete=${complete} />`}
      ${resource.loading && html`<${Waiting} />`}</div>`;
  }
  const { service, checks, metrics, policies, events, alerts } = resource.data;
  return html`<div class="page service" data-testid="service-detail" data-service=${service.service} data-state=${service.state}>
    <${PageHead} title=${service.service} before=${back}><${ServiceState} state=${service.state} /><span class="end"><${MaintenanceControl} service=${service} onDone=${resource.reload} /></span><//>
    <${Failure} resource=${resource} />
    ${service.reason && html`<p class=${`banner ${service.state === "down" ? "error" : service.state === "degraded" ? "warning" : "info"}`} data-testid="service-reason"><span class="break">${reasonOf(service)}</span></p>`}
    <${Headline} service=${service} />
    ${service.simulation && html`<${SimulationPanel} service=${service} />`}
    <${Charts} id=${id} alerts=${alerts} metrics=${metrics} />
    <${Guards} policies=${policies} changes=${changes} complete=${complete} />
    <div class="two-columns">
      <div class="stack">
        <${Panel} title=${t("service.alerts")} flush testid="service-alerts" end=${html`<a href=${link(["alerts"], { service: id })}>${t("overview.all")}</a>`}>
          ${alerts.length === 0 && html`<${Nothing}>${t("sensor.noAlerts")}<//>`}
          ${alerts.length > 0 && html`<${AlertRows} alerts=${alerts} caption=${t("service.alerts")} columns=${["summary", "status", "began", "lasted", "acknowledged"]} />`}<//>
        <${Metrics} metrics=${metrics} />
      </div>
      <div class="stack"><${Checks} checks=${checks} /><${Events} id=${id} events=${events} /></div>
    </div>
  </div>`;
}

function Guards({ policies, changes, complete }) {
  if (policies.length === 0 && changes.length === 0) return null;
  return html`<${Panel} title=${t("service.policies")} flush testid="service-policies" end=${html`<a href="#/resilience">${t("nav.resilience")}</a>`}>
    <${Policies} policies=${policies} changes=${changes} complete=${complete} caption=${t("service.policies")} /><//>`;
}

function newestFirst(changes) {
  const seen = new Set();
  return changes.sort((a, b) => Date.parse(b.at) - Date.parse(a.at)).filter((each) => {
    const key = `${each.caller} ${each.name} ${each.at} ${each.to}`;
    return !seen.has(key) && seen.add(key);
  });
}

function Headline({ service }) {
  const value = (field) => typeof service[field] === "number" && html`<span class="strong" data-testid=${field} data-value=${service[field]}>${metricText(field, service[field])}</span>`;
  const memory = (service.memory_percent ?? service.memory_bytes) !== null && html`<span class="strong">${memoryText(service)}</span>`;
  return html`<section class="panel headline" aria-label=${t("sensor.now")}>
    <${FactRow} facts=${[
      [t("service.since"), html`<${Moment} at=${service.since} />`],
      ...["response_time_ms", "error_rate_percent", "requests_per_second", "cpu_percent"].map((field) => [t(`services.col.${field}`), value(field)]),
      [t("services.col.memory"), memory],
      [t("services.col.uptime_seconds"), typeof service.uptime_seconds === "number" && metricText("uptime_seconds", service.uptime_seconds)],
      [t("service.lastCheck"), service.last_check_at && html`<${Ago} at=${service.last_check_at} />`],
      [t("service.heard"), html`<${Ago} at=${service.last_seen} />`],
      [t("service.started"), service.started_at && html`<${Moment} at=${service.started_at} />`],
      [t("sensors.col.type"), service.kind && word("kind", service.kind)],
      [t("service.version"), service.version],
      [t("service.address"), service.address && html`<code class="break">${service.address}</code>`],
      [t("service.description"), service.description],
    ]} />
  </section>`;
}

function Charts({ id, alerts, metrics }) {
  const chosen = useRange(id, () => "15m", () => ({ from: serverNow() - 6 * HOUR, to: serverNow(), span: 6 * HOUR, sliding: true }));
  const { state, load } = usePoints(id, chosen.range);
  const tick = chosen.range.sliding ? second.value : 0;
  const now = serverNow();
  const range = chosen.range.sliding ? { from: now - chosen.range.span, to: now } : chosen.range;
  void tick;
  const place = (name) => (ORDER.indexOf(name) + 1 || ORDER.length + 1);
  const names = [...state.series.keys()].filter((name) => !UNDRAWN.has(name)).sort((a, b) => place(a) - place(b) || a.localeCompare(b));
  const units = new Map(metrics.map((each) => [each.name, each.unit]));
  return html`<${Panel} title=${t("service.metrics")} className="chart-panel" testid="service-charts" end=${html`<${RangeButtons} names=${RANGES} chosen=${chosen} />`}>
    ${chosen.choosing && html`<${CustomRange} range=${chosen.range} />`}
    ${state.error && html`<${Failure} resource=${{ error: state.error, reload: load }} />`}
    ${!state.loaded && !state.error && html`<${Waiting} />`}
    ${state.loaded && names.length === 0 && html`<p class="note">${t("service.noPoints")}</p>`}
    <div class="metric-charts">${names.slice(0, CHARTS_SHOWN).map((name) => {
      const lines = state.series.get(name);
      return html`<${LinesChart} key=${`${name} ${Math.min(lines.length, 8)}`} name=${name} unit=${units.get(name)} title=${metricTitle(name)} lines=${lines} range=${range} alerts=${alerts.filter((alert) => alert.labels?.metric === name)} />`;
    })}</div>
    ${(names.length > CHARTS_SHOWN || state.truncated) && html`<p class="small muted">${t(state.truncated ? "service.truncated" : "service.moreMetrics")}</p>`}
  <//>`;
}

/** The points of a service's metrics in a range: fetched once, then what is new as the stream tells of it. */
function usePoints(id, range) {
  const empty = { series: new Map(), loaded: false, error: null, truncated: false };
  const state = useSignal(empty);
  const load = useRef(() => {});
  const key = range.sliding ? `${id} ${range.span}` : `${id} ${range.from} ${range.to}`;
  useEffect(() => {
    const aborter = new AbortController();
    let [newest, timer, busy] = [null, 0, false];
    const ask = async () => {
      timer = 0;
      if (busy) return soon();
      busy = true;
      const now = serverNow();
      const from = range.sliding ? now - range.span : range.from;
      // The last stretch may have had more values since.
      const begin = newest === null ? from : Math.max(from, newest - AGAIN_MS);
      try {
        const points = await get(`/api/services/${encodeURIComponent(id)}/metrics`, { from: new Date(begin).toISOString(), to: range.sliding ? undefined : new Date(range.to).toISOString() }, aborter.signal);
        const before = newest === null ? new Map() : state.peek().series;
        const series = taken(before, points.series, begin, from);
        for (const each of points.series) newest = Math.max(newest ?? 0, Date.parse(each.timestamps.at(-1)) || 0);
        state.value = { series, loaded: true, error: null, truncated: points.truncated };
      } catch (error) {
        if (!aborter.signal.aborted) state.value = { ...state.peek(), error };
      }
      busy = false;
    };
    const soon = () => { timer ||= setTimeout(ask, SETTLE_MS); };
    load.current = ask;
    state.value = empty;
    ask();
    const stops = [
      listen("event", (events) => { if (range.sliding && events.some((event) => event.type === "metrica_coletada" && event.source === id)) soon(); }),
      listen("refetch", () => { newest = null; soon(); }),
    ];
    return () => { stops.forEach((stop) => stop()); clearTimeout(timer); aborter.abort(); };
  }, [key]);
  return { state: state.value, load: () => load.current() };
}

const SETTLE_MS = 1000;
const AGAIN_MS = 30000;

/** Metric → lines, with `added` in the place of everything from `begin` on, and nothing from before `from`. */
function taken(before, added, begin, from) {
  const lines = new Map();
  const keyOf = (name, tags) => `${name} ${JSON.stringify(tags)}`;
  for (const [name, list] of before) for (const line of list) lines.set(keyOf(name, line.tags), { name, ...cut(line, (at) => at >= from && at < begin) });
  for (const { name, tags, timestamps, values, min, max } of added) {
    const key = keyOf(name, tags);
    const line = lines.get(key) ?? { name, tags, times: [], values: [], min: [], max: [] };
    lines.set(key, { ...line, times: [...line.times, ...timestamps.map(Date.parse)], values: [...line.values, ...values], min: [...line.min, ...min], max: [...line.max, ...max] });
  }
  const series = new Map();
  for (const { name, ...line } of lines.values()) if (line.times.length) series.set(name, [...(series.get(name) ?? []), line]);
  return series;
}

function cut(line, keep) {
  const at = line.times.map((_, i) => i).filter((i) => keep(line.times[i]));
  const of = (column) => at.map((i) => column[i]);
  return { tags: line.tags, times: of(line.times), values: of(line.values), min: of(line.min), max: of(line.max) };
}

function Checks({ checks }) {
  const columns = [
    { key: "check", className: "lead", render: (c) => html`<span class="break">${c.check}</span> <span class="muted small">${c.kind && word("check", c.kind)}${!c.critical && ` · ${t("service.notCritical")}`}</span>` },
    { key: "state", className: "bare", render: (c) => html`<${ServiceState} state=${c.state} testid="check-state" />` },
    { key: "since", render: (c) => html`<${Moment} at=${c.since} />` },
    { key: "response_time_ms", num: true, render: (c) => metricText("response_time_ms", c.response_time_ms) },
    { key: "reason", className: "wide", render: (c) => c.reason && html`<span class="break small">${said(c.reason)}</span>` },
  ].filter(({ key }) => key !== "reason" || checks.some((c) => c.reason)).map((column) => ({ ...column, label: t(`checks.col.${column.key}`) }));
  return html`<${Panel} title=${t("service.checks")} flush testid="service-checks">
    ${checks.length === 0 && html`<${Nothing}>${t("service.noChecks")}<//>`}
    ${checks.length > 0 && html`<${Table} caption=${t("service.checks")} columns=${columns} rows=${checks} rowKey=${(c) => c.check} rowProps=${(c) => ({ "data-testid": "check-row", "data-check": c.check, "data-state": c.state })} />`}
  <//>`;
}

function Events({ id, events }) {
  return html`<${Panel} title=${t("service.events")} flush testid="service-events" end=${html`<a href=${link(["events"], { source: id })}>${t("overview.all")}</a>`}>
    ${events.length === 0 && html`<${Nothing}>${t("events.none")}<//>`}
    <ul class="lines">${events.map((event) => html`<li key=${event.id} data-testid="service-event" data-type=${event.type}><span class="nowrap muted"><${Moment} at=${event.time} /></span>
      <span class="break">${known(`event.${event.type}`) ? t(`event.${event.type}`) : event.type} <span class="muted small">${factOf(event.data)}</span></span></li>`)}</ul>
  <//>`;
}

function Metrics({ metrics }) {
  const number = (key) => ({ key, num: true, className: key === "count" || key === "min" ? "low" : "", render: (m) => (key === "count" ? format.compact(m.count) : metricText(m.name, m[key], m.unit)) });
  const columns = [
    { key: "metric", className: "lead", render: (m) => html`<span class="break" title=${m.name}>${metricTitle(m.name)}</span>` },
    number("last"), number("mean"), number("min"), number("max"), number("count"),
  ].map((column) => ({ ...column, label: t(`metrics.col.${column.key}`) }));
  return html`<${Panel} title=${t("service.totals")} flush testid="service-metrics">
    ${metrics.length === 0 && html`<${Nothing}>${t("service.noMetrics")}<//>`}
    ${metrics.length > 0 && html`<${Table} caption=${t("service.totals")} columns=${columns} rows=${metrics} rowKey=${(m) => m.name} rowProps=${(m) => ({ "data-testid": "metric-row", "data-metric": m.name })} />`}
  <//>`;
}
