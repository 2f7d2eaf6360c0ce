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
