// The chart of one sensor. It owns its window of time: the range that the page asks for, or what somebody zoomed to.
// Each window is fetched anew at the chart's resolution, so zooming in shows readings that decimation had left out.
import uPlot from "../../vendor/uplot.js";
import { html, useEffect, useMemo, useRef, useSignal } from "../dom.js";
import { get } from "../api.js";
import * as format from "../format.js";
import { t, tn } from "../i18n.js";
import { second, serverNow } from "../live/clock.js";
import { listen } from "../live/stream.js";
import { Icon } from "../parts/icons.js";
import { token } from "../theme.js";
import { timeAxis, valueAxis } from "./axes.js";
import { ChartFrame } from "./frame.js";
import { drawBands, drawThresholds, gutter, thresholdLines, valueRange } from "./overlays.js";
import { Series } from "./series.js";

const HEIGHT = 340;
const READING_LIMIT = 100000;
const NARROWEST_MS = 20;
const PAN = 0.25;
/** How many readings of the stream are remembered for answers that don't have them yet. */
const ARRIVED_LIMIT = 200;
/** Below this width, in CSS pixels, thresholds are labelled with sign and number only. */
const NARROW = 560;

/** `range`: { from, to, sliding } in ms; `sliding` moves along with the clock,
 *  `open` grows with the newest reading. `unit` for the read-out. */
export function SensorChart({ sensor, range, alerts, unit, onShowAll }) {
  const chart = useRef(null);
  const series = useMemo(() => new Series(), []);
  const drawnRevision = useSignal(0);
  const zoom = useSignal(null);
  const answer = useSignal({ loading: true, error: null });
  const box = useRef(null);
  const readout = useRef(null);
  const live = useRef({});
  const shown = zoom.value ?? range;
  const lines = thresholdLines(sensor.thresholds);
  Object.assign(live.current, { alerts, lines, shown, unit, sliding: shown.sliding });

  useEffect(() => { zoom.value = null; }, [range.from, range.to, range.sliding]);

  // A sliding window is asked for once; the stream carries it on. The others are asked for at each change.
  const windowKey = shown.sliding ? `slide ${shown.span}` : `${shown.from} ${shown.to}`;
  useEffect(() => {
    const aborter = new AbortController();
    let again = 0;
    const load = async () => {
      const { from, to } = windowNow(live.current.shown);
      answer.value = { ...answer.peek(), loading: true };
      try {
        const columns = await get("/api/readings", {
          sensor_id: sensor.sensor_id, from: new Date(Math.floor(from)).toISOString(), to: new Date(Math.ceil(to)).toISOString(),
          format: "columns", limit: READING_LIMIT, max_points: points(box.current),
        }, aborter.signal);
        series.load(columns);
        // The views may not have got as far as the stream had when the answer was made.
        const loadedTo = series.length ? series.times[series.length - 1] : -Infinity;
        for (const [at, value] of live.current.arrived ?? []) if (at > loadedTo && at >= from && (at <= to || follows(live.current.shown))) series.add(at, value);
        answer.value = { loading: false, error: null, total: columns.total, truncated: columns.truncated, decimated: columns.decimated };
        drawnRevision.value += 1;
      } catch (error) {
        if (!aborter.signal.aborted) answer.value = { ...answer.peek(), loading: false, error };
      }
    };
    load();
    live.current.load = () => {
      clearTimeout(again);
      again = setTimeout(load, 300);
    };
    const stop = listen("refetch", live.current.load);
    return () => { stop(); clearTimeout(again); aborter.abort(); };
  }, [sensor.sensor_id, windowKey]);

  useEffect(() => listen("reading", (messages) => {
    const { from, to } = windowNow(live.current.shown);
    let added = false;
    for (const message of messages) {
      for (const reading of message.readings) {
        const at = Date.parse(reading.timestamp);
        if (reading.sensor_id !== sensor.sensor_id) continue;
        live.current.arrived = [...(live.current.arrived ?? []), [at, reading.value]].slice(-ARRIVED_LIMIT);
        if (at < from || (at > to && !follows(live.current.shown))) continue;
        series.add(at, reading.value);
        added = true;
      }
    }
    if (!added) return;
    if (series.full) live.current.load();
    drawnRevision.value += 1;
  }), [sensor.sensor_id]);

  const feed = () => {
    const { from, to } = windowNow(live.current.shown, series);
    if (live.current.sliding) series.dropBefore(from);
    chart.current.setData(series.drawn(), false);
    chart.current.setScale("x", { min: from, max: to });
  };
  const create = (element, width, height) => newChart(element, width, height, {
    live, onSelect: (from, to) => { zoom.value = bounded(from, to); },
    onCursor: (at) => writeReadout(readout.current, series, at, live.current.unit),
  });
  const change = (factor, shift = 0) => {
    const { from, to } = windowNow(shown, series);
    const span = (to - from) * factor;
    const middle = (from + to) / 2 + shift * (to - from);
    zoom.value = bounded(middle - span / 2, middle + span / 2);
  };
  const reset = () => { zoom.value = null; };
  const keys = { "+": () => change(0.5), "=": () => change(0.5), "-": () => change(2), ArrowLeft: () => change(1, -PAN), ArrowRight: () => change(1, PAN), 0: reset, Home: reset, Escape: reset };
  const tick = shown.sliding ? second.value : 0;
  const { loading, error, total, truncated, decimated } = answer.value;
  const empty = !loading && !error && series.length === 0;

  return html`<div class="sensor-chart" ref=${box} data-testid="sensor-chart" data-points=${series.length} data-total=${total} data-from=${Math.round(shown.from)} data-to=${Math.round(shown.to)} data-zoomed=${zoom.value !== null}>
    <div class="chart-tools">
      <p class="readout" ref=${readout} data-testid="chart-readout"></p>
      <div class="end" role="group" aria-label=${t("chart.tools")}>
        <button type="button" class="button icon quiet" onClick=${() => change(1, -PAN)} aria-label=${t("chart.earlier")} title=${t("chart.earlier")}><${Icon} name="earlier" /></button>
        <button type="button" class="button icon quiet" onClick=${() => change(0.5)} aria-label=${t("chart.in")} title=${t("chart.in")} data-testid="zoom-in"><${Icon} name="zoomIn" /></button>
        <button type="button" class="button icon quiet" onClick=${() => change(2)} aria-label=${t("chart.out")} title=${t("chart.out")} data-testid="zoom-out"><${Icon} name="zoomOut" /></button>
        <button type="button" class="button icon quiet" onClick=${() => change(1, PAN)} aria-label=${t("chart.later")} title=${t("chart.later")}><${Icon} name="later" /></button>
        <button type="button" class="button" disabled=${zoom.value === null} onClick=${reset} data-testid="zoom-reset">${t("chart.reset")}</button>
      </div>
    </div>
    <div class="chart-keys" tabindex="0" role="group" aria-label=${t("chart.keys")} data-testid="chart-keys" onKeyDown=${(event) => pressed(event, keys)}>
      <${ChartFrame} chart=${chart} create=${create} feed=${feed} height=${HEIGHT} label=${describe(sensor, series, shown)}
        data=${`${drawnRevision.value} ${windowKey} ${tick} ${bandsOf(alerts)} ${lines.length}`} />
      ${empty && html`<div class="chart-empty" data-testid="chart-empty"><p>${t("chart.empty")}</p>
        <button type="button" class="button" onClick=${() => { reset(); onShowAll(); }}>${t("chart.showAll")}</button></div>`}
    </div>
    <p class="chart-note" data-testid="chart-note">
      ${error ? html`<span class="sev-critical">${t("error.load")} ${error.message}</span> <button type="button" class="button small" onClick=${() => live.current.load()}>${t("action.retry")}</button>`
        : loading && series.length === 0 ? t("state.loading")
        : html`<span>${total !== undefined && tn("chart.readings", total, format.integer(total))}${decimated && ` · ${t("chart.decimated", { n: format.integer(series.length) })}`}${truncated && ` · ${t("chart.truncated", { n: format.integer(READING_LIMIT) })}`}</span>`}
      <span class="low">${t("chart.hint")}</span>
    </p>
  </div>`;
}

const follows = (shown) => Boolean(shown.sliding || shown.open);

function windowNow({ from, to, sliding, open, span }, series) {
  if (open && series?.length) return { from, to: Math.max(to, series.times[series.length - 1]) };
  if (!sliding) return { from, to };
  const now = serverNow();
  return { from: now - span, to: now };
}

/** Changes when a band does. */
function bandsOf(alerts) {
  return alerts.map((alert) => `${alert.id}${alert.ended_at ?? ""}`).join();
}

function bounded(from, to) {
  const span = Math.max(to - from, NARROWEST_MS);
  // Whole milliseconds: the API and the ticks of the time axis know no fractions.
  return { from: Math.floor(from), to: Math.ceil(from + span), sliding: false };
}

/** About two points per pixel: a lowest and a highest for each. */
function points(element) {
  return Math.min(4000, Math.max(400, Math.round((element?.clientWidth ?? 800) * 2)));
}

function pressed(event, keys) {
  const action = event.ctrlKey || event.metaKey || event.altKey ? null : keys[event.key];
  if (!action) return;
  event.preventDefault();
  action();
}

function writeReadout(element, series, at, unit) {
  if (!element) return;
  const index = at === null ? -1 : series.nearest(at);
  element.textContent = index < 0 ? "" : `${format.dayAndClock(series.times[index])}   ${format.quantity(series.values[index], unit)}`;
}

function describe(sensor, series, { from, to }) {
  if (series.length === 0) return t("chart.describeEmpty", { id: sensor.sensor_id });
  let [low, high] = [Infinity, -Infinity];
  for (const value of series.values) {
    if (value < low) low = value;
    if (value > high) high = value;
  }
  return t("chart.describe", {
    id: sensor.sensor_id, from: format.dayAndClock(from), to: format.dayAndClock(to),
    low: format.quantity(low, sensor.unit), high: format.quantity(high, sensor.unit),
  });
}

function newChart(element, width, height, { live, onSelect, onCursor }) {
  const u = new uPlot({
    width, height, ms: 1, legend: { show: false }, padding: [4, (chart) => gutter(live.current.lines, chart.width < NARROW), 0, 0],
    cursor: { y: false, drag: { x: true, y: false, setScale: false, dist: 4 }, points: { size: 7, fill: token("--chart-line") }, bind: { dblclick: () => null } },
    scales: {
      x: { time: true, auto: false },
      y: { range: (_, low, high) => valueRange(low, high, live.current.lines) },
    },
    axes: [timeAxis(), valueAxis(format.plain)],
    series: [{}, { stroke: token("--chart-line"), width: 1.5, spanGaps: false, points: { size: 5, fill: token("--chart-line") } }],
    hooks: {
      drawAxes: [(chart) => drawBands(chart, live.current.alerts, serverNow())],
      draw: [(chart) => drawThresholds(chart, live.current.lines, chart.width < NARROW)],
      setCursor: [(chart) => onCursor(chart.cursor.left >= 0 ? chart.posToVal(chart.cursor.left, "x") : null)],
      setSelect: [(chart) => {
        const { left, width: wide } = chart.select;
        if (wide < 4) return;
        onSelect(chart.posToVal(left, "x"), chart.posToVal(left + wide, "x"));
        chart.setSelect({ left: 0, top: 0, width: 0, height: 0 }, false);
      }],
    },
  }, [[], []], element);
  return u;
}
