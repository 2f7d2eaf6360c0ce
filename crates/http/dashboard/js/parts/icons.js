// Line icons on a 16 px grid and the marks of severity. A mark differs by shape as well as by colour.
import { html } from "../dom.js";
import { word } from "../i18n.js";

const PATHS = {
  overview: "M2 2.5h5v6H2zM9 2.5h5v3.5H9zM9 8h5v5.5H9zM2 10.5h5v3H2z",
  sensors: "M1 8h3l2-5 3.5 10 2-5H15",
  services: "M2 2.5h12v4.5H2zM2 9h12v4.5H2zM4.5 4.75h.5M4.5 11.25h.5M8 4.75h3.5M8 11.25h3.5",
  resilience: "M1.5 11.5h4M10.5 11.5h4M5.5 11.5l5-6.5M5.5 11.5v.1M10.5 11.5v.1",
  silence: "M3 3l10 10M6 2.7A4 4 0 0 1 12 6v3M4 6v3l-1.5 2.5h9M6.5 13.5h3",
  alerts: "M8 2a4 4 0 0 1 4 4v3l1.5 2.5h-11L4 9V6a4 4 0 0 1 4-4zM6.5 13.5h3",
  pipeline: "M1.5 3h4v3h-4zM1.5 10h4v3h-4zM10.5 6.5h4v3h-4zM5.5 4.5h2.5v7H5.5M8 8h2.5",
  rules: "M2 4h6M11 4h3M9.5 2.5v3M2 8h2M7 8h7M5.5 6.5v3M2 12h7M12 12h2M10.5 10.5v3",
  events: "M2 3.5h1M5 3.5h9M2 8h1M5 8h9M2 12.5h1M5 12.5h9",
  light: "M8 5a3 3 0 1 1 0 6 3 3 0 0 1 0-6zM8 1v1.5M8 13.5V15M1 8h1.5M13.5 8H15M3 3l1 1M12 12l1 1M13 3l-1 1M4 12l-1 1",
  dark: "M13 9.5A5.5 5.5 0 0 1 6.5 3 5.5 5.5 0 1 0 13 9.5z",
  copy: "M5.5 5.5h8v8h-8zM10.5 5.5v-3h-8v8h3",
  close: "M4 4l8 8M12 4l-8 8",
  zoomIn: "M7 2.5a4.5 4.5 0 1 1 0 9 4.5 4.5 0 0 1 0-9zM10.5 10.5L14 14M7 5v4M5 7h4",
  zoomOut: "M7 2.5a4.5 4.5 0 1 1 0 9 4.5 4.5 0 0 1 0-9zM10.5 10.5L14 14M5 7h4",
  earlier: "M10 3L5 8l5 5",
  later: "M6 3l5 5-5 5",
  ascending: "M8 4l4 6H4z",
  descending: "M8 12l4-6H4z",
  stop: "M4.5 4.5h7v7h-7z",
  start: "M5 3.5l7 4.5-7 4.5z",
  move: "M2 8h11M9.5 4.5L13 8l-3.5 3.5",
};

const FILLED = new Set(["ascending", "descending"]);

export function Icon({ name, className }) {
  const filled = FILLED.has(name);
  return html`<svg class=${className} viewBox="0 0 16 16" aria-hidden="true" fill=${filled ? "currentColor" : "none"}
    stroke=${filled ? "none" : "currentColor"} stroke-width="1.4" stroke-linecap="round" stroke-linejoin="round"><path d=${PATHS[name]} /></svg>`;
}

/** The drawing of `logo.svg`, here in the colour of its surroundings. */
export function Logo() {
  return html`<svg viewBox="0 0 32 32" aria-hidden="true" fill="currentColor">
    <path d="M13 4h6l1.2 3h-8.4zM12 8.5h8v4.5h-8zM12.4 14.5h7.2l.8 4.5h-8.8zM11.3 20.5h9.4l.8 4.5h-11zM8 26.5h16V29H8z" />
    <path opacity=".45" d="M10 9.2v3L1.5 15.5v-4zM22 9.2v3l8.5 3.3v-4z" /></svg>`;
}

// ring · disc with i · triangle · diamond · filled octagon with bar · broken ring
const MARKS = {
  normal: html`<circle cx="8" cy="8" r="5" fill="none" stroke="currentColor" stroke-width="2" />`,
  info: html`<circle cx="8" cy="8" r="6.5" fill="currentColor" /><path d="M8 7v4.5M8 4.2v1" stroke="var(--surface)" stroke-width="1.8" />`,
  warning: html`<path d="M8 1.5L15 14H1z" fill="currentColor" /><path d="M8 6v4M8 11.3v1.4" stroke="var(--surface)" stroke-width="1.6" />`,
  error: html`<path d="M8 .8L15.2 8 8 15.2.8 8z" fill="currentColor" /><path d="M8 4.5v4.3M8 10.1v1.5" stroke="var(--surface)" stroke-width="1.7" />`,
  critical: html`<path d="M5 1h6l4 4v6l-4 4H5l-4-4V5z" fill="currentColor" /><path d="M5.3 5.3l5.4 5.4M10.7 5.3l-5.4 5.4" stroke="var(--surface)" stroke-width="1.9" />`,
  stale: html`<circle cx="8" cy="8" r="5.5" fill="none" stroke="currentColor" stroke-width="1.8" stroke-dasharray="2.9 2.9" />`,
};

export function Mark({ level }) {
  return html`<svg class="mark" viewBox="0 0 16 16" aria-hidden="true">${MARKS[level] ?? MARKS.stale}</svg>`;
}

/** A severity, or the state of a sensor: shape, word and colour. */
export function Level({ level, testid }) {
  return html`<span class=${`sev sev-${level}`} data-testid=${testid} data-level=${level}><${Mark} level=${level} />${word("level", level)}</span>`;
}

const SERVICE_MARK = { starting: "stale", up: "normal", degraded: "warning", down: "critical", maintenance: "info", unknown: "stale" };

/** The state of a service or of a check: shape, word and colour. */
export function ServiceState({ state, testid = "service-state" }) {
  const level = SERVICE_MARK[state] ?? "stale";
  return html`<span class=${`sev sev-${level}`} data-testid=${testid} data-state=${state}><${Mark} level=${level} />${word("service", state)}</span>`;
}

const STATUS_MARK = { pending: "stale", firing: "critical", resolved: "normal", dismissed: "stale" };

/** The status of an alert; while it fires, in the colour of its severity. */
export function AlertStatus({ alert }) {
  const level = alert.status === "firing" ? alert.severity : STATUS_MARK[alert.status];
  return html`<span class=${`badge ${alert.status} severity-${alert.severity}`} data-testid="alert-status">
    <${Mark} level=${level} />${word("status", alert.status)}</span>`;
}
