// One sensor: its chart, thresholds, alerts, newest readings and what its sender says about it.
import { html, useEffect, useSignal } from "../dom.js";
import { SensorChart } from "../chart/sensor.js";
import * as format from "../format.js";
import { t, word } from "../i18n.js";
import { serverNow } from "../live/clock.js";
import { useLatest } from "../live/latest.js";
import { useResource } from "../live/resource.js";
import { focusOn, listen } from "../live/stream.js";
import { AlertRows, alertsOf, mergeAlerts } from "../parts/alert-rows.js";
import { Level } from "../parts/icons.js";
import { CustomRange, RangeButtons, useRange } from "../parts/range.js";
import { PageHead } from "../parts/shell.js";
import { FactRow, Failure, Nothing, Panel, Waiting } from "../parts/states.js";
import { Table } from "../parts/table.js";
import { Ago, Moment } from "../parts/time.js";
import { link } from "../router.js";
import { place } from "./sensors.js";

const MINUTE = 60e3;
const ALERTS_KEPT = 500;
const ALERTS_SHOWN = 50;
const READINGS_SHOWN = 50;

export function SensorPage({ id }) {
  const resource = useResource(`/api/sensors/${encodeURIComponent(id)}`, { every: 10000, on: ["alert"], settle: 400 });
  // Every reading of this sensor while its page is open; the newest of all again afterwards.
  useEffect(() => {
    focusOn(id);
    return () => focusOn(null);
  }, [id]);
  // An unknown sensor may become known: its first reading is worth another look.
  useEffect(() => listen("reading", (messages) => {
    if (resource.error?.status === 404 && messages.some((message) => message.readings.some((reading) => reading.sensor_id === id))) resource.reload();
  }), [resource.error]);
  const back = html`<a class="back" href="#/sensors">${t("nav.sensors")}</a><span class="muted" aria-hidden="true">/</span>`;
  if (!resource.data) {
    return html`<div class="page"><${PageHead} title=${id} before=${back} />
      ${resource.error?.status === 404 ? html`<p class="banner info" data-testid="not-found">${t("sensor.unknown")}</p>` : html`<${Failure} resource=${resource} />`}
      ${resource.loading && html`<${Waiting} />`}</div>`;
  }
  return html`<${Known} sensor=${resource.data} resource=${resource} back=${back} />`;
}

function Known({ sensor, resource, back }) {
  const alerts = useAlerts(sensor.sensor_id);
  return html`<div class="page sensor">
    <${PageHead} title=${sensor.sensor_id} before=${back}><${Level} level=${sensor.state} testid="sensor-state" /><//>
    <${Failure} resource=${resource} />
    <${Headline} sensor=${sensor} />
    <${ChartPanel} sensor=${sensor} alerts=${alerts} />
    <div class="two-columns">
      <div class="stack">
        <${Panel} title=${t("sensor.alerts")} flush testid="sensor-alerts" end=${html`<a href=${link(["alerts"], { source: sensor.sensor_id })}>${t("overview.all")}</a>`}>
          ${alerts.length === 0 && html`<${Nothing}>${t("sensor.noAlerts")}<//>`}
          ${alerts.length > 0 && html`<div class="scroll" tabindex="0" role="group" aria-label=${t("sensor.alerts")}>
            <${AlertRows} alerts=${alerts.slice(0, ALERTS_SHOWN)} caption=${t("sensor.alerts")} columns=${["summary", "status", "began", "lasted", "acknowledged"]} /></div>`}
        <//>
        <${Thresholds} thresholds=${sensor.thresholds ?? []} unit=${sensor.unit} />
      </div>
      <div class="stack"><${Readings} sensor=${sensor} /></div>
    </div>
  </div>`;
}

function Headline({ sensor }) {
  const { value, at, seen } = useLatest(sensor).value;
  return html`<section class="panel headline" aria-label=${t("sensor.now")}>
    <p class="figure" data-testid="sensor-value" data-sensor-id=${sensor.sensor_id} data-value=${value}>${format.measure(value)}<span class="unit">${sensor.unit}</span></p>
    <${FactRow} facts=${[
      [t("sensor.time"), html`<${Moment} at=${at} />`],
      [t("sensor.heard"), html`<${Ago} at=${seen} />`],
      [t("sensors.col.type"), word("type", sensor.sensor_type)],
      [t("sensors.col.place"), place(sensor.location)],
      [t("sensors.col.readings"), format.integer(sensor.readings)],
      [t("sensor.since"), html`<${Moment} at=${sensor.first_timestamp} />`],
      [t("sensor.quality"), typeof sensor.quality === "number" && format.measure(sensor.quality)],
      [t("sensor.senderSays"), sensor.alert_level && word("level", sensor.alert_level)],
    ]} />
  </section>`;
}

/**
 * The sensor's alerts, for the list and for the chart's bands. Not those of the sensor's own answer: a rule with a duration
 * leaves many dismissed ones behind, and among the newest 50 of all there may be none that fired.
 */
function useAlerts(id) {
  const resource = useResource("/api/alerts", { query: { source: id, status: "firing,resolved,pending", limit: ALERTS_KEPT }, every: 30000 });
  useEffect(() => listen("alert", (messages) => {
    const fits = (alert) => alert.series === id && alert.status !== "dismissed";
    resource.mutate((data) => ({ ...data, alerts: mergeAlerts(data.alerts, alertsOf(messages), fits, ALERTS_KEPT) }));
  }), [id]);
  return resource.data?.alerts ?? [];
}

/** Where the data is: the last minutes if the sensor is alive, everything if its newest reading is old. */
function fittingRange(sensor) {
  const now = serverNow();
  const newest = format.instant(sensor.last_timestamp);
  if (Math.abs(now - newest) > 15 * MINUTE) return "all";
  return now - format.instant(sensor.first_timestamp) < 40 * MINUTE ? "15m" : "1h";
}

/** Everything, which grows with the newest reading. */
function everything(sensor) {
  const first = format.instant(sensor.first_timestamp);
  const last = Math.max(first + 1000, format.instant(sensor.last_timestamp));
  const margin = (last - first) * 0.01;
  return { from: Math.floor(first - margin), to: Math.ceil(last + margin), open: true };
}

function ChartPanel({ sensor, alerts }) {
  const chosen = useRange(sensor.sensor_id, () => fittingRange(sensor), () => everything(sensor));
  return html`<${Panel} title=${t("sensor.chart")} className="chart-panel" testid="chart-panel" end=${html`<${RangeButtons} names=${["15m", "1h", "24h", "7d", "all", "custom"]} chosen=${chosen} />`}>
    ${chosen.choosing && html`<${CustomRange} range=${chosen.range} />`}
    <${SensorChart} sensor=${sensor} range=${chosen.range} alerts=${alerts} unit=${sensor.unit} onShowAll=${() => chosen.choose("all")} />
  <//>`;
}

function Thresholds({ thresholds, unit }) {
  return html`<${Panel} title=${t("sensor.thresholds")} flush testid="thresholds" end=${html`<a href="#/rules">${t("nav.rules")}</a>`}>
    ${thresholds.length === 0 && html`<${Nothing}>${t("sensor.noThresholds")}<//>`}
    <ul class="lines">${thresholds.map((threshold) => html`<li key=${threshold.rule}><${Level} level=${threshold.severity} /><span class="break">${threshold.rule}</span><span class="n">${bounds(threshold, unit)}</span></li>`)}</ul>
  <//>`;
}

function bounds({ above, below, outside, clear }, unit) {
  const parts = [];
  if (typeof above === "number") parts.push(`> ${format.plainQuantity(above, unit)}`);
  if (typeof below === "number") parts.push(`< ${format.plainQuantity(below, unit)}`);
  if (Array.isArray(outside)) parts.push(t("rules.outside", { low: format.plain(outside[0]), high: format.plainQuantity(outside[1], unit) }));
  if (typeof clear === "number") parts.push(t("rules.clear", { value: format.plainQuantity(clear, unit) }));
  return parts.join(" · ");
}

/** The newest readings as they came; the stream adds to them, the API knows their positions. */
function Readings({ sensor }) {
  const resource = useResource("/api/readings", { query: { sensor_id: sensor.sensor_id, limit: READINGS_SHOWN, format: "rows" }, every: 15000 });
  const added = useSignal([]);
  useEffect(() => { added.value = []; }, [resource.data]);
  useEffect(() => listen("reading", (messages) => {
    const mine = messages.flatMap((message) => message.readings).filter((reading) => reading.sensor_id === sensor.sensor_id);
    if (mine.length) added.value = [...added.peek(), ...mine].slice(-READINGS_SHOWN);
  }), [sensor.sensor_id]);
  const known = resource.data?.readings ?? [];
  const same = (a) => `${Date.parse(a.timestamp)} ${a.value}`;
  const had = new Set(known.map(same));
  const rows = [...known, ...added.value.filter((reading) => !had.has(same(reading)))]
    .sort((a, b) => Date.parse(b.timestamp) - Date.parse(a.timestamp)).slice(0, READINGS_SHOWN);
  const metadata = known.at(-1)?.metadata;
  const columns = [
    { key: "time", label: t("sensor.time"), className: "lead nowrap", render: (r) => html`<${Moment} at=${r.timestamp} />` },
    { key: "value", label: t("sensors.col.value"), num: true, render: (r) => format.quantity(r.value, r.unit ?? sensor.unit) },
    { key: "quality", label: t("sensor.quality"), num: true, className: "low", render: (r) => (typeof r.quality === "number" ? format.measure(r.quality) : null) },
    { key: "position", label: t("sensor.position"), num: true, render: (r) => r.position && html`<code class="muted small" title=${format.position(r.position)}>${r.position.partition}@${r.position.offset}</code>` },
  ].filter((column) => column.key !== "quality" || rows.some((r) => typeof r.quality === "number"));
  return html`
    <${Panel} title=${t("sensor.readings")} flush testid="latest-readings">
      <${Failure} resource=${resource} />
      <div class="scroll" tabindex="0" role="group" aria-label=${t("sensor.readings")}>
        <${Table} caption=${t("sensor.readings")} columns=${columns} rows=${rows} rowKey=${(r) => same(r)} rowProps=${(r) => ({ "data-testid": "reading-row", "data-value": r.value })} />
      </div>
    <//>
    ${metadata && typeof metadata === "object" && html`<${Panel} title=${t("sensor.metadata")} testid="metadata">
      <dl class="facts">${Object.entries(metadata).slice(0, 50).map(([name, value]) => html`<dt key=${`t${name}`}><code>${name}</code></dt><dd key=${name}>${typeof value === "object" ? JSON.stringify(value) : String(value)}</dd>`)}</dl><//>`}`;
}
