// What every chart shares: axes in the chosen language and the colours of the theme.
import * as format from "../format.js";
import { token } from "../theme.js";

const FONT = '11px system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", sans-serif';
const DAY_S = 86400;

/** Labels of a time axis in ms. The day stands under the first label and wherever it changes. */
export function timeLabels(splits, incrementMs) {
  const increment = incrementMs / 1000;
  if (increment >= 28 * DAY_S) return splits.map(format.month);
  if (increment >= DAY_S) return splits.map(format.dayShort);
  const text = increment < 1 ? format.clockMillis : increment < 60 ? format.clock : format.clockMinutes;
  let before = null;
  return splits.map((ms) => {
    const day = format.dayShort(ms);
    const label = day === before ? text(ms) : `${text(ms)}\n${day}`;
    before = day;
    return label;
  });
}

const grid = () => ({ stroke: token("--chart-grid"), width: 1 });
const ticks = () => ({ stroke: token("--line"), width: 1, size: 4 });

export function timeAxis() {
  return {
    stroke: token("--ink-3"), font: FONT, grid: { show: false }, ticks: ticks(), border: { show: true, stroke: token("--line"), width: 1 },
    size: 40, gap: 4, space: 72,
    values: (_, splits, __, ___, increment) => timeLabels(splits, increment),
  };
}

export function valueAxis(text) {
  return {
    stroke: token("--ink-3"), font: FONT, grid: grid(), ticks: { show: false }, size: (_, values) => axisWidth(values), gap: 6, space: 36,
    values: (_, splits) => splits.map(text),
  };
}

function axisWidth(values) {
  const longest = Math.max(3, ...(values ?? []).map((value) => String(value ?? "").length));
  return 16 + longest * 6.5;
}

export const chartFont = FONT;
export const PIXELS = () => devicePixelRatio || 1;
