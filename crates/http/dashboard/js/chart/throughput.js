// Readings per second over the last five minutes.
import uPlot from "../../vendor/uplot.js";
import { html, useRef } from "../dom.js";
import * as format from "../format.js";
import { t } from "../i18n.js";
import { token } from "../theme.js";
import { timeAxis, valueAxis } from "./axes.js";
import { ChartFrame } from "./frame.js";

export const WINDOW_S = 300;

/** `history`: [{ at (ms), readings, rejected }] ascending, one per second. */
export function ThroughputChart({ history, now }) {
  const chart = useRef(null);
  const feed = () => {
    const begin = now - WINDOW_S * 1000;
    chart.current.setData([history.map((p) => p.at), history.map((p) => p.readings), history.map((p) => p.rejected || null)], false);
    chart.current.setScale("x", { min: begin, max: now });
  };
  const newest = history.at(-1);
  return html`<${ChartFrame} chart=${chart} create=${create} feed=${feed} data=${history} height=${148}
    label=${t("overview.throughputLabel", { n: format.rate(newest?.readings ?? 0) })} data-testid="throughput-chart" />`;
}

function create(element, width, height) {
  return new uPlot({
    width, height, ms: 1, legend: { show: false }, padding: [8, 8, 0, 0],
    cursor: { show: false },
    scales: {
      x: { time: true, auto: false },
      y: { range: (_, __, high) => [0, Math.max(1, (high ?? 0) * 1.15)] },
    },
    axes: [timeAxis(), valueAxis(format.compact)],
    series: [
      {},
      { stroke: token("--chart-line"), fill: token("--chart-fill"), width: 1.25, points: { show: false } },
      { stroke: token("--critical-mark"), width: 1.25, points: { show: true, size: 4 } },
    ],
  }, [[], [], []], element);
}
