// What is drawn over and under a sensor's line: thresholds of the rules in force and the spans of its alerts.
import { instant, plain } from "../format.js";
import { word } from "../i18n.js";
import { token } from "../theme.js";
import { PIXELS, chartFont } from "./axes.js";

const LEVELS = ["info", "warning", "error", "critical"];
const LANE = 5;
/** Different dashes, so that thresholds are told apart without colour. */
const DASHES = { info: [2, 4], warning: [6, 4], error: [10, 4], critical: [] };

/** The lines that one threshold stands for: [{ value, severity, rule, sign }]. */
export function thresholdLines(thresholds) {
  const lines = [];
  for (const { rule, severity, above, below, outside } of thresholds ?? []) {
    if (typeof above === "number") lines.push({ value: above, severity, rule, sign: ">" });
    if (typeof below === "number") lines.push({ value: below, severity, rule, sign: "<" });
    if (Array.isArray(outside)) {
      lines.push({ value: outside[0], severity, rule, sign: "<" }, { value: outside[1], severity, rule, sign: ">" });
    }
  }
  return lines;
}

/** The range of the value axis: the data, and those thresholds that are near enough to matter. */
export function valueRange(low, high, lines) {
  if (low === null || high === null || low === undefined || high === undefined) return [0, 1];
  const span = Math.max(high - low, Math.abs(high) * 0.02, 1e-6);
  let [bottom, top] = [low, high];
  for (const { value } of lines) {
    if (value > high && value - high <= span * 1.2) top = Math.max(top, value);
    if (value < low && low - value <= span * 1.2) bottom = Math.min(bottom, value);
  }
  const margin = (top - bottom || span) * 0.08;
  return [bottom - margin, top + margin];
}

/** Under the line: a faint ground and a lane at the top for each alert, from its beginning to its end. */
export function drawBands(u, alerts, now) {
  const { ctx, bbox } = u;
  const scale = PIXELS();
  ctx.save();
  ctx.beginPath();
  ctx.rect(bbox.left, bbox.top, bbox.width, bbox.height);
  ctx.clip();
  for (const alert of [...alerts].sort((a, b) => LEVELS.indexOf(a.severity) - LEVELS.indexOf(b.severity))) {
    if (alert.status === "dismissed" || alert.status === "pending") continue;
    const from = u.valToPos(instant(alert.began_at), "x", true);
    const to = u.valToPos(alert.ended_at ? instant(alert.ended_at) : now, "x", true);
    const left = Math.max(from, bbox.left);
    const width = Math.max(Math.min(to, bbox.left + bbox.width) - left, scale);
    if (to < bbox.left || from > bbox.left + bbox.width) continue;
    const colour = token(`--${alert.severity}-mark`) || token(`--${alert.severity}`);
    ctx.fillStyle = colour;
    ctx.globalAlpha = 0.08;
    ctx.fillRect(left, bbox.top, width, bbox.height);
    ctx.globalAlpha = 1;
    const lane = LEVELS.length - 1 - LEVELS.indexOf(alert.severity);
    ctx.fillRect(left, bbox.top + lane * (LANE + 1) * scale, width, LANE * scale);
  }
  ctx.restore();
}

const GUTTER_LABEL = 6;

const textOf = ({ severity, sign, value }, short) => (short ? `${sign} ${plain(value)}` : `${word("severity", severity)} ${sign} ${plain(value)}`);

/** Width that the labels of the thresholds need beside the plot, in CSS pixels. */
export function gutter(lines, short) {
  if (lines.length === 0) return 12;
  const ctx = document.createElement("canvas").getContext("2d");
  ctx.font = chartFont;
  return Math.ceil(Math.max(...lines.map((line) => ctx.measureText(textOf(line, short)).width))) + GUTTER_LABEL + 14;
}

/** Over the line: each threshold, with its label in the gutter; one out of view leaves its label at the edge. */
export function drawThresholds(u, lines, short) {
  const { ctx, bbox } = u;
  const scale = PIXELS();
  ctx.save();
  ctx.font = chartFont.replace(/^(\d+)px/, (_, size) => `${Number(size) * scale}px`);
  ctx.textAlign = "left";
  ctx.textBaseline = "middle";
  const placed = [];
  for (const line of [...lines].sort((a, b) => b.value - a.value)) {
    const y = Math.round(u.valToPos(line.value, "y", true)) + 0.5;
    const [top, bottom] = [bbox.top, bbox.top + bbox.height];
    const colour = token(`--${line.severity}`);
    if (y >= top && y <= bottom) {
      ctx.strokeStyle = colour;
      ctx.lineWidth = scale;
      ctx.setLineDash((DASHES[line.severity] ?? []).map((n) => n * scale));
      ctx.beginPath();
      ctx.moveTo(bbox.left, y);
      ctx.lineTo(bbox.left + bbox.width, y);
      ctx.stroke();
    }
    const arrow = y < top ? " ↑" : y > bottom ? " ↓" : "";
    ctx.fillStyle = colour;
    ctx.fillText(textOf(line, short) + arrow, bbox.left + bbox.width + GUTTER_LABEL * scale, besides(placed, Math.min(Math.max(y, top + 6 * scale), bottom - 6 * scale), 13 * scale));
  }
  ctx.restore();
}

/** Labels come from the top down: one that would cover the last moves below it. */
function besides(placed, y, height) {
  const last = placed.at(-1);
  const free = last === undefined ? y : Math.max(y, last + height);
  placed.push(free);
  return free;
}
