// A small chart of one metric: a line for each set of tags. The extremes of what was thinned out stand behind a line that is alone.
import uPlot from "../../vendor/uplot.js";
import { html, useRef } from "../dom.js";
import * as format from "../format.js";
import { t } from "../i18n.js";
import { serverNow } from "../live/clock.js";
import { metricText } from "../parts/service-values.js";
import { token } from "../theme.js";
import { timeAxis, valueAxis } from "./axes.js";
import { ChartFrame } from "./frame.js";
import { drawBands } from "./overlays.js";

/** So many sets of tags are drawn; the table of metrics has their sums in any case. */
export const LINE_LIMIT = 8;
const HEIGHT = 150;
const DASHES = [[], [6, 3], [2, 3], [10, 3], [6, 3, 2, 3], [3, 3], [12, 3, 3, 3], [1, 2]];
/** A hole of so many usual distances is a gap: no line is drawn over it. */
const GAP_FACTOR = 6;

const nameOf = (tags) => Object.entries(tags).map(([name, value]) => `${name}=${value}`).join(" ");

/** `lines`: [{ tags, times, values, min, max }], times in ms; `alerts` are those about this metric. */
export function LinesChart({ name, unit, title, lines, range, alerts }) {
  const chart = useRef(null);
  const live = useRef({});
  const readout = useRef(null);
  const shown = lines.slice(0, LINE_LIMIT);
  const alone = shown.length === 1;
  Object.assign(live.current, { alerts, shown });
  const write = (value) => metricText(name, value, unit);
  const tell = (index, data) => {
    if (readout.current) readout.current.textContent = index === null ? newest(shown, write) : `${format.clock(data[0][index])}   ${shown.map((_, i) => data[i + 1][index]).filter((value) => value !== null && value !== undefined).map(write).join("   ")}`;
  };
  const feed = () => {
    chart.current.setData(alone ? withExtremes(shown[0]) : joined(shown), false);
    chart.current.setScale("x", { min: range.from, max: range.to });
    tell(null);
  };
  const create = (element, width, height) => newChart(element, width, height, { live, count: shown.length, write, tell });
  const last = shown[0]?.times.at(-1);
  return html`<figure class="metric-chart" data-testid="metric-chart" data-metric=${name} data-points=${shown.reduce((sum, line) => sum + line.times.length, 0)}>
    <figcaption><span class="strong">${title}</span><span class="n" ref=${readout}></span></figcaption>
    <${ChartFrame} chart=${chart} create=${create} feed=${feed} height=${HEIGHT} data=${`${last} ${range.from} ${range.to} ${alerts.length}`} label=${t("chart.metric", { title, now: newest(shown, write) })} />
    ${!alone && html`<ul class="chart-legend">${shown.map((line, i) => html`<li key=${nameOf(line.tags)}><svg viewBox="0 0 24 4" aria-hidden="true"><line x1="0" y1="2" x2="24" y2="2" stroke=${`var(--owner-${i})`} stroke-width="2" stroke-dasharray=${DASHES[i].join(" ")} /></svg><span class="break">${nameOf(line.tags) || title}</span></li>`)}</ul>`}
    ${lines.length > LINE_LIMIT && html`<p class="small muted">${t("chart.moreLines", { n: format.integer(lines.length - LINE_LIMIT) })}</p>`}
  </figure>`;
}

const newest = (shown, write) => shown.map((line) => write(line.values.at(-1))).join("   ");

/** Times, values, highest and lowest, with a null inside each gap. */
function withExtremes({ times, values, min, max }) {
  const limit = GAP_FACTOR * usual(times);
  const columns = [[], [], [], []];
  times.forEach((at, i) => {
    if (i > 0 && at - times[i - 1] > limit) [(times[i - 1] + at) / 2, null, null, null].forEach((value, column) => columns[column].push(value));
    [at, values[i], max[i], min[i]].forEach((value, column) => columns[column].push(value));
  });
  return columns;
}

function usual(times) {
  const distances = times.slice(1).map((at, i) => at - times[i]).sort((a, b) => a - b);
  return Math.max(1000, distances[Math.floor(distances.length / 2)] ?? 0);
}

/** One column of times for all lines. */
function joined(lines) {
  const times = [...new Set(lines.flatMap((line) => line.times))].sort((a, b) => a - b);
  const place = new Map(times.map((at, i) => [at, i]));
  return [times, ...lines.map((line) => {
    const column = new Array(times.length).fill(undefined);
    line.times.forEach((at, i) => { column[place.get(at)] = line.values[i]; });
    return column;
  })];
}

function newChart(element, width, height, { live, count, write, tell }) {
  const alone = count === 1;
  const line = (i) => ({ stroke: token(alone ? "--chart-line" : `--owner-${i}`), width: 1.5, dash: alone ? undefined : DASHES[i], spanGaps: !alone, points: { show: (u, at) => u.data[at].length < 3 } });
  const extreme = () => ({ stroke: "transparent", points: { show: false } });
  return new uPlot({
    width, height, ms: 1, legend: { show: false }, padding: [8, 16, 0, 0],
    cursor: { y: false, drag: { x: false, y: false }, points: { size: 6 }, sync: { key: "service" } },
    scales: { x: { time: true, auto: false }, y: { range: (_, low, high) => [Math.min(0, low ?? 0), Math.max((high ?? 0) * 1.12, 1e-3)] } },
    axes: [timeAxis(), { ...valueAxis(write), space: 32 }],
    series: [{}, ...Array.from({ length: count }, (_, i) => line(i)), ...(alone ? [extreme(), extreme()] : [])],
    bands: alone ? [{ series: [2, 3], fill: token("--chart-fill") }] : [],
    hooks: {
      drawAxes: [(u) => drawBands(u, live.current.alerts, serverNow())],
      setCursor: [(u) => tell(u.cursor.left >= 0 ? u.cursor.idx ?? null : null, u.data)],
    },
  }, Array.from({ length: count + (alone ? 3 : 1) }, () => []), element);
}
