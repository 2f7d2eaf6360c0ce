// A spark line of the newest values. Its own scale: it shows shape, the number beside it shows size.
import { html } from "../dom.js";

const WIDTH = 96;
const HEIGHT = 24;
const PAD = 3;

export function Spark({ values }) {
  if (!values || values.length < 2) return html`<svg class="spark" aria-hidden="true" viewBox=${`0 0 ${WIDTH} ${HEIGHT}`}></svg>`;
  const low = Math.min(...values);
  const high = Math.max(...values);
  const x = (i) => (i / (values.length - 1)) * (WIDTH - 4);
  const y = (value) => (high === low ? HEIGHT / 2 : HEIGHT - PAD - ((value - low) / (high - low)) * (HEIGHT - 2 * PAD));
  const points = values.map((value, i) => `${x(i).toFixed(1)},${y(value).toFixed(1)}`).join(" ");
  const last = values.length - 1;
  return html`<svg class="spark" aria-hidden="true" viewBox=${`0 0 ${WIDTH} ${HEIGHT}`}>
    <polyline points=${points} /><circle cx=${x(last).toFixed(1)} cy=${y(values[last]).toFixed(1)} r="2" /></svg>`;
}
