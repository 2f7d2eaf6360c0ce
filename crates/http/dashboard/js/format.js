// Numbers, times and durations as the chosen language writes them. Times are shown in the browser's zone; the exact
// UTC text of the wire stays in the `title` and `datetime` of every <time>.
import { language, t } from "./i18n.js";

const cache = new Map();
function formatter(Kind, options) {
  const key = `${Kind.name} ${language.value} ${JSON.stringify(options)}`;
  let found = cache.get(key);
  if (!found) {
    found = new Kind(language.value, options);
    cache.set(key, found);
  }
  return found;
}

const missing = "–";
const isNumber = (value) => typeof value === "number" && Number.isFinite(value);

/** From here on all digits of a number would say less than its exponent, and stretch whatever holds them. */
const HUGE = 1e15;
const scientific = (value) => formatter(Intl.NumberFormat, { notation: "scientific", maximumSignificantDigits: 5 }).format(value);

export function integer(value) {
  if (isNumber(value) && Math.abs(value) >= HUGE) return scientific(value);
  return isNumber(value) ? formatter(Intl.NumberFormat, { maximumFractionDigits: 0 }).format(value) : missing;
}

/** A rate per second: a decimal only while it is small enough to matter. */
export function rate(value) {
  if (!isNumber(value)) return missing;
  if (Math.abs(value) >= HUGE) return scientific(value);
  return formatter(Intl.NumberFormat, { maximumFractionDigits: value !== 0 && Math.abs(value) < 100 ? 1 : 0 }).format(value);
}

/** A measured value: about five significant digits, always enough decimals to see a change. */
export function measure(value) {
  if (!isNumber(value)) return missing;
  const size = Math.abs(value);
  if (size >= 1e7 || (size > 0 && size < 1e-3)) return scientific(value);
  const digits = size >= 10000 ? 0 : size >= 1000 ? 1 : size >= 1 ? 2 : 4;
  const fewest = size >= 1 && size < 1000 ? Math.min(digits, 2) : 0;
  return formatter(Intl.NumberFormat, { minimumFractionDigits: fewest, maximumFractionDigits: digits }).format(value);
}

/** A value that somebody wrote down, a threshold say: its own digits and no more. */
export function plain(value) {
  if (isNumber(value) && Math.abs(value) >= HUGE) return scientific(value);
  return isNumber(value) ? formatter(Intl.NumberFormat, { maximumFractionDigits: 6 }).format(value) : missing;
}

export function plainQuantity(value, unit) {
  return unit ? `${plain(value)}\u00a0${unit}` : plain(value);
}

/** `value` with its unit after a space that doesn't break. */
export function quantity(value, unit) {
  return unit ? `${measure(value)}\u00a0${unit}` : measure(value);
}

export function compact(value) {
  if (!isNumber(value)) return missing;
  if (Math.abs(value) < 100000) return integer(value);
  if (Math.abs(value) >= HUGE) return scientific(value);
  return formatter(Intl.NumberFormat, { notation: "compact", maximumFractionDigits: 1 }).format(value);
}

const BYTE_UNITS = ["B", "kB", "MB", "GB", "TB"];
export function bytes(value) {
  if (!isNumber(value)) return missing;
  if (Math.abs(value) >= HUGE * 1e3) return `${scientific(value)}\u00a0B`;
  let size = value;
  let unit = 0;
  while (Math.abs(size) >= 1000 && unit < BYTE_UNITS.length - 1) {
    size /= 1000;
    unit += 1;
  }
  return `${formatter(Intl.NumberFormat, { maximumFractionDigits: unit && size < 100 ? 1 : 0 }).format(size)}\u00a0${BYTE_UNITS[unit]}`;
}

/** A span of time from milliseconds, in its two largest units. */
export function duration(ms) {
  if (!isNumber(ms)) return missing;
  const whole = Math.max(0, ms);
  if (whole < 1000) return `${Math.round(whole)}\u00a0ms`;
  const s = Math.floor(whole / 1000);
  if (s < 10) return `${formatter(Intl.NumberFormat, { maximumFractionDigits: 1 }).format(whole / 1000)}\u00a0s`;
  if (s < 60) return `${s}\u00a0s`;
  if (s < 3600) return `${Math.floor(s / 60)}\u00a0min ${s % 60}\u00a0s`;
  if (s < 86400) return `${Math.floor(s / 3600)}\u00a0h ${Math.floor((s % 3600) / 60)}\u00a0min`;
  return `${integer(Math.floor(s / 86400))}\u00a0d ${Math.floor((s % 86400) / 3600)}\u00a0h`;
}

/** How long ago, in one unit. */
export function ago(ms) {
  if (!isNumber(ms)) return missing;
  const s = Math.round(ms / 1000);
  if (s < -5) return t("time.in", { span: oneUnit(-s) });
  return s < 2 ? t("time.now") : t("time.ago", { span: oneUnit(s) });
}

function oneUnit(s) {
  if (s < 60) return `${s}\u00a0s`;
  if (s < 3600) return `${Math.floor(s / 60)}\u00a0min`;
  if (s < 86400) return `${Math.floor(s / 3600)}\u00a0h`;
  return `${integer(Math.floor(s / 86400))}\u00a0d`;
}

const UNIT_S = { s: 1, m: 60, h: 3600, d: 86400 };

/** A span as settings write it (`30m`), for people. */
export const spanText = (text) => oneUnit(Number.parseInt(text, 10) * UNIT_S[text.at(-1)]);

const CLOCK = { hour: "2-digit", minute: "2-digit", second: "2-digit", hourCycle: "h23" };
const DAY = { day: "numeric", month: "short", year: "numeric" };

export const clock = (ms) => formatter(Intl.DateTimeFormat, CLOCK).format(ms);
export const clockMinutes = (ms) => formatter(Intl.DateTimeFormat, { hour: "2-digit", minute: "2-digit", hourCycle: "h23" }).format(ms);
export const clockMillis = (ms) => formatter(Intl.DateTimeFormat, { ...CLOCK, fractionalSecondDigits: 3 }).format(ms);
export const day = (ms) => formatter(Intl.DateTimeFormat, DAY).format(ms);
export const dayShort = (ms) => formatter(Intl.DateTimeFormat, { day: "numeric", month: "short" }).format(ms);
export const month = (ms) => formatter(Intl.DateTimeFormat, { month: "short", year: "numeric" }).format(ms);
export const dayAndClock = (ms) => formatter(Intl.DateTimeFormat, { ...DAY, ...CLOCK }).format(ms);

/** The time of day if `ms` lies in the last 20 hours, the day and time otherwise. */
export function moment(ms, now) {
  return Math.abs(now - ms) < 20 * 3600e3 ? clock(ms) : dayAndClock(ms);
}

/** The time of day, or the day alone when it lies further away. */
export function brief(ms, now) {
  return Math.abs(now - ms) < 20 * 3600e3 ? clock(ms) : day(ms);
}

/** A position of the log as Kafka people write it: topic/partition@offset. */
export function position(at) {
  return at ? `${at.topic}/${at.partition}@${at.offset}` : missing;
}

/** Milliseconds of an RFC 3339 text, or NaN. */
export const instant = (text) => (text ? Date.parse(text) : NaN);

/** `ms` as the value of an <input type="datetime-local">, in the browser's zone, and back. */
export function toLocalInput(ms) {
  const local = new Date(ms - new Date(ms).getTimezoneOffset() * 60000);
  return local.toISOString().slice(0, 19);
}
export const fromLocalInput = (text) => (text ? new Date(text).getTime() : NaN);
