// Rules: which are in force, where they came from, and whether a newer file was refused.
import { html } from "../dom.js";
import * as format from "../format.js";
import { t } from "../i18n.js";
import { useResource } from "../live/resource.js";
import { Level } from "../parts/icons.js";
import { clearing, condition } from "../parts/sentences.js";
import { PageHead } from "../parts/shell.js";
import { Failure, Nothing, Waiting } from "../parts/states.js";
import { Table } from "../parts/table.js";
import { Moment } from "../parts/time.js";
import { link } from "../router.js";

const LEVELS = ["critical", "error", "warning", "info"];

export function RulesPage() {
  const resource = useResource("/api/rules", { every: 10000, on: ["pipeline"] });
  const data = resource.data;
  const rules = [...(data?.rules ?? [])].sort((a, b) => LEVELS.indexOf(a.severity) - LEVELS.indexOf(b.severity) || a.name.localeCompare(b.name));
  const columns = [
    { key: "name", className: "lead", render: (rule) => html`<span class="id" title=${rule.name}>${rule.name}</span>${rule.enabled === false && html` <span class="badge">${t("rules.disabled")}</span>`}` },
    { key: "severity", className: "bare", render: (rule) => html`<${Level} level=${rule.severity} />` },
    { key: "condition", className: "wide", render: (rule) => html`<span>${condition(rule)}</span>` },
    { key: "clears", className: "wide", render: (rule) => html`<span class="muted">${clearing(rule)}</span>` },
    { key: "select", className: "wide", render: (rule) => html`<code class="small break">${rule.select}</code>` },
    { key: "alerts", className: "low", render: (rule) => html`<a href=${link(["alerts"], { rule: rule.name })}>${t("rules.show")}</a>` },
  ].map((column) => ({ ...column, label: t(`rules.col.${column.key}`) }));
  return html`<div class="page">
    <${PageHead} title=${t("nav.rules")}><span class="muted">${data && t("rules.inForce", { n: format.integer(rules.length) })}</span><//>
    <${Failure} resource=${resource} />
    ${data?.problem && html`<div class="banner warning" role="alert" data-testid="rules-problem"><div><p class="strong">${t("rules.problem")}</p><pre class="problem" lang="en">${data.problem}</pre></div></div>`}
    ${!data && !resource.error && html`<${Waiting} />`}
    ${data && html`<section class="panel long" aria-label=${t("nav.rules")}>
      ${rules.length === 0 && html`<${Nothing}>${t("rules.none")}<//>`}
      ${rules.length > 0 && html`<${Table} caption=${t("nav.rules")} columns=${columns} rows=${rules} rowKey=${(rule) => rule.name} rowProps=${(rule) => ({ "data-testid": "rule-row", "data-rule": rule.name, className: rule.enabled === false ? "dim" : "" })} />`}
      <div class="table-foot" data-testid="rules-source"><span class="break">${data.files?.length ? html`${t("rules.files")} <code>${data.files.join(", ")}</code>` : t("rules.builtIn")}</span>
        <span>${t("rules.loaded")} <${Moment} at=${data.loaded_at} /></span></div>
    </section>`}
  </div>`;
}

/** One rule in full, as an alert carries it: readable first, exact JSON beneath. */
export function RuleText({ rule }) {
  if (!rule || typeof rule !== "object") return html`<p class="muted">–</p>`;
  const fact = (label, value) => value !== undefined && value !== "" && html`<dt key=${`t${label}`}>${label}</dt><dd key=${label}>${value}</dd>`;
  return html`<dl class="facts">
      ${fact(t("rules.col.name"), rule.name)}
      ${fact(t("rules.col.condition"), condition(rule))}
      ${fact(t("rules.col.clears"), clearing(rule))}
      ${fact(t("rules.col.select"), rule.select && html`<code>${rule.select}</code>`)}
      ${fact(t("rules.quality"), typeof rule.min_quality === "number" ? format.plain(rule.min_quality) : undefined)}
      ${Object.entries(rule.labels ?? {}).map(([name, value]) => fact(name, value))}
    </dl>
    <details><summary>${t("rules.json")}</summary><pre class="code wrap" tabindex="0">${JSON.stringify(rule, null, 2)}</pre></details>`;
}
