// Sentences about what the server found. Its own are English and stay so on the wire; other languages make theirs from the
// facts beside them. What people wrote themselves (a rule's summary) is shown as it is in every language.
import * as format from "../format.js";
import { known, language, t } from "../i18n.js";

const english = () => language.value === "en";

/** An alert in one sentence. */
export function summaryOf(alert) {
  const rule = alert.rule_definition;
  const own = english() || typeof rule?.summary === "string" || !rule || typeof rule !== "object";
  return own ? alert.summary : t("sentence.alert", { series: alert.series, condition: condition(rule) });
}

/** Why a step of an alert's life was taken. */
export function because({ kind, evidence }, { rule_definition: rule, labels }) {
  if (english() || !rule || typeof rule !== "object") return evidence.explanation;
  if (!(evidence.positions?.length > 0)) return t("sentence.ruleChanged");
  if (rule.absent_for) return kind === "fired" ? t("sentence.absent", { span: rule.absent_for }) : t("sentence.arrived");
  const value = format.quantity(evidence.value, rule.rate_above ?? rule.rate_below ? "" : labels?.unit);
  if (kind === "resolved") return t("sentence.cleared", { value, condition: condition(rule) });
  if (kind === "dismissed") return t("sentence.dismissed", { value, condition: condition(rule) });
  return t("sentence.found", { value, condition: condition(rule) });
}

/** What is wrong with the system: a problem by its code, or the server's sentence when the code is not known here. */
export function problemText(problem) {
  const key = `problem.${problem.code}`;
  return known(key) ? t(`problem.${problem.code}`, { view: problem.view, records: format.integer(problem.records), why: problem.why }) : problem.text;
}

/** Why the log takes no records, in few words; nothing if it does. */
export function refusal(log) {
  if (!log?.poisoned) return undefined;
  if (log.waiting_for_space) return t("overview.logFull");
  return log.folder_not_writable ? t("overview.logFolder") : t("overview.logPoisoned");
}

/** Why a service is in its state: by its code, what somebody told in their own words, or the server's sentence when the code is not known here. */
export function reasonOf({ reason, cause }) {
  if (!cause) return said(reason);
  const { code, ...parts } = cause;
  const because = parts.why ? `: ${said(parts.why)}` : "";
  switch (code) {
    case "stopped": return t("cause.stopped") + because;
    case "check_down": return because ? t("cause.check", { check: parts.check }) + because : t("cause.check_down", { check: parts.check });
    case "error_rate": return t("cause.error_rate", { percent: format.plain(parts.above_percent) });
    case "breaker_open": return t("cause.breaker_open", { name: parts.name, caller: parts.caller });
    case "silent": return t("cause.silent", { span: format.duration(parts.for_seconds * 1000) });
    default: return reason;
  }
}

/** What Farol's checks and breakers keep in the log is in English words; these are known here, with what stands in them. */
const SAID = [
  ["no_heartbeat", /^no heartbeat for (?<span>.+)$/],
  ["no_answer", /^no answer within (?<span>.+)$/],
  ["no_address", /^`(?<host>.+?)` has no address: (?<why>.+)$/],
  ["out_of_reach", /^`(?<host>.+)` is not on loopback, where alone this check may go$/],
  ["no_connection", /^can't connect to (?<at>.+?): (?<why>.+)$/],
  ["no_tls", /^no TLS with (?<at>.+?): (?<why>.+)$/],
  ["unreadable", /^the answer can't be read: (?<why>.+)$/],
  ["status", /^status (?<status>.+), expected (?<expected>.+)$/],
  ["body", /^the answer does not contain `(?<text>.+)`$/],
  ["redirect", /^the redirect can't be followed: (?<why>.+)$/],
  ["down_before", /^it was down before the restart$/],
  ["not_checked", /^it is not checked like this any more$/],
  ["not_watched", /^it is not watched any more$/],
  ["time_up", /^its time was up$/],
  ["lasted", /^after (?<seconds>[\d.]+) s$/],
  ["failures", /^(?<n>\d+) consecutive failures$/],
  ["failure_rate", /^(?<n>\d+) of the last (?<total>\d+) calls failed$/],
  ["slow_rate", /^(?<n>\d+) of the last (?<total>\d+) calls were slow$/],
  ["open_long_enough", /^the time to stay open is up$/],
  ["probe_failed", /^a probe failed$/],
  ["probe_slow", /^a probe was slow$/],
  ["probe_succeeded", /^a probe succeeded$/],
  ["probes_succeeded", /^(?<n>\d+) probes succeeded$/],
  ["probes_overdue", /^the probes brought no verdict in time$/],
  ["by_hand", /^by hand$/],
];

/** Such a sentence in the page's language; any other is somebody's own and stays as it is. */
export function said(text) {
  if (english() || typeof text !== "string") return text;
  for (const [code, form] of SAID) {
    const found = form.exec(text);
    if (found) return t(`said.${code}`, found.groups);
  }
  // An outage is told with the check that found it in front.
  const [, check, rest] = /^([A-Za-z0-9][\w.-]*): (.+)$/.exec(text) ?? [];
  return rest ? `${check}: ${said(rest)}` : text;
}

/** When a rule fires, in words. */
export function condition(rule) {
  const number = (value) => format.plain(value);
  const per = rule.rate_per ?? "1m";
  const parts = [];
  if (typeof rule.above === "number") parts.push(t("rules.above", { value: number(rule.above) }));
  if (typeof rule.below === "number") parts.push(t("rules.below", { value: number(rule.below) }));
  if (Array.isArray(rule.outside)) parts.push(t("rules.outside", { low: number(rule.outside[0]), high: number(rule.outside[1]) }));
  if (typeof rule.rate_above === "number") parts.push(t("rules.rateAbove", { value: number(rule.rate_above), per }));
  if (typeof rule.rate_below === "number") parts.push(t("rules.rateBelow", { value: number(rule.rate_below), per }));
  if (rule.absent_for) parts.push(t("rules.absent", { span: rule.absent_for }));
  if (rule.window) parts.push(t("rules.window", { span: rule.window }));
  if (rule.for) parts.push(t("rules.for", { span: rule.for }));
  return parts.join(" ");
}

/** When what a rule found is over, in words. */
export function clearing(rule) {
  const parts = [];
  if (typeof rule.clear === "number") parts.push(t("rules.clear", { value: format.plain(rule.clear) }));
  if (Array.isArray(rule.clear)) parts.push(t("rules.clearWithin", { low: format.plain(rule.clear[0]), high: format.plain(rule.clear[1]) }));
  if (rule.clear_for) parts.push(t("rules.for", { span: rule.clear_for }));
  return parts.join(" ");
}
