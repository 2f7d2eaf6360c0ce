// Alerts: filtered, live, or as they stood at a chosen instant.
import { html, useEffect, useRef, useSignal } from "../dom.js";
import * as format from "../format.js";
import { t, word } from "../i18n.js";
import { serverNow } from "../live/clock.js";
import { usePages } from "../live/pages.js";
import { listen } from "../live/stream.js";
import { AlertRows, alertsOf, mergeAlerts } from "../parts/alert-rows.js";
import { PageHead, useDebounced } from "../parts/shell.js";
import { SilencesPanel, useSilences } from "../parts/silences.js";
import { Failure, ListFoot, Nothing, Waiting } from "../parts/states.js";
import { route, setQuery } from "../router.js";

const PAGE_SIZE = 100;
/** Rows that the page keeps at most; what is older is reached by narrowing the filter. */
const ROW_LIMIT = 1000;
const STATUSES = ["firing", "pending", "resolved", "dismissed"];
const SEVERITIES = ["critical", "error", "warning", "info"];
const FRESH_MS = 3000;

export function AlertsPage() {
  const { query } = route.value;
  const source = useSignal(query.source ?? "");
  const rule = useSignal(query.rule ?? "");
  const settledSource = useDebounced(source.value.trim(), 300);
  const settledRule = useDebounced(rule.value.trim(), 300);
  useEffect(() => {
    const now = route.peek().query;
    if ((now.source ?? "") !== settledSource || (now.rule ?? "") !== settledRule) setQuery({ ...now, source: settledSource, rule: settledRule });
  }, [settledSource, settledRule]);

  const filter = { status: query.status, severity: query.severity, source: settledSource, rule: settledRule, service: query.service, acknowledged: query.acknowledged, at: query.at };
  const list = usePages("/api/alerts", "alerts", { ...filter, limit: PAGE_SIZE }, { idOf: (alert) => alert.id, limit: ROW_LIMIT, every: query.at ? 0 : 15000 });
  const { rows } = list;
  const fresh = useSignal(new Set());
  const silences = useSilences(() => { if (!query.at) list.reload(); });
  useLiveAlerts(list, filter, fresh);

  const filtered = Object.values({ ...filter, at: undefined }).some(Boolean);
  const clear = () => {
    source.value = rule.value = "";
    setQuery({ at: query.at });
  };

  return html`<div class="page">
    <${PageHead} title=${t("nav.alerts")}><span class="muted" data-testid="alerts-found">${list.data && t("alerts.found", { n: format.integer(list.data.total) })}</span><span class="end"><${AsOf} query=${query} /></span><//>
    <form class="filters" onSubmit=${(event) => event.preventDefault()} aria-label=${t("filter.label")}>
      <${Choices} field="status" values=${STATUSES} prefix="status" query=${query} />
      <${Choices} field="severity" values=${SEVERITIES} prefix="severity" query=${query} />
      <label class="field"><span>${t("alerts.col.acknowledged")}</span>
        <select class="input" data-testid="acknowledged-filter" value=${query.acknowledged ?? ""} onChange=${(event) => setQuery({ ...query, acknowledged: event.currentTarget.value })}>
          <option value="">${t("filter.any")}</option><option value="false">${t("filter.no")}</option><option value="true">${t("filter.yes")}</option>
        </select></label>
      <label class="field"><span>${t("alerts.col.series")} <kbd class="low">/</kbd></span><input class="input" data-slash data-testid="source-filter" value=${source.value} onInput=${(event) => { source.value = event.currentTarget.value; }} /></label>
      <label class="field"><span>${t("alerts.col.rule")}</span><input class="input" data-testid="rule-filter" value=${rule.value} onInput=${(event) => { rule.value = event.currentTarget.value; }} /></label>
      ${query.service && html`<span class="badge" data-testid="service-filter" data-value=${query.service}>${t("services.col.service")}: ${query.service}</span>`}
      ${filtered && html`<button type="button" class="button" data-testid="clear-filters" onClick=${clear}>${t("filter.clear")}</button>`}
    </form>
    ${query.at && html`<div class="banner info" data-testid="as-of-banner"><span>${t("alerts.asOf", { time: format.dayAndClock(format.instant(query.at)) })}</span>
      <button type="button" class="button small" data-testid="as-of-now" onClick=${() => setQuery({ ...query, at: "" })}>${t("alerts.backToNow")}</button></div>`}
    <${Failure} resource=${list} />
    <section class="panel long" aria-label=${t("nav.alerts")} aria-busy=${list.loading}>
      ${!list.data && !list.error && html`<${Waiting} />`}
      ${list.data && rows.length === 0 && html`<${Nothing}>${t(filtered || query.at ? "alerts.noneFound" : "alerts.none")}<//>`}
      ${rows.length > 0 && html`<${AlertRows} alerts=${rows} fresh=${fresh.value} caption=${t("nav.alerts")} testid="alert-table"
        columns=${query.at ? ["summary", "status", "severity", "series", "rule", "value", "began"] : ["summary", "status", "severity", "series", "rule", "value", "began", "lasted", "acknowledged"]} />
        <${ListFoot} more=${list.more} text=${t("page.shown", { shown: format.integer(rows.length), total: format.integer(Math.max(list.data.total, rows.length)) })} />`}
    </section>
    <${SilencesPanel} running=${silences} opened=${Boolean(query.silences)} />
  </div>`;
}

/** Toggle buttons whose chosen values stand in the address as a comma list. */
function Choices({ field, values, prefix, query }) {
  const chosen = new Set((query[field] ?? "").split(",").filter(Boolean));
  const toggle = (value) => {
    const next = new Set(chosen);
    if (!next.delete(value)) next.add(value);
    setQuery({ ...query, [field]: values.filter((each) => next.has(each)).join(",") });
  };
  return html`<fieldset class="choices"><legend class="legend">${t(`alerts.col.${field}`)}</legend>
    <div class="segments">${values.map((value) => html`<button key=${value} type="button" class="button" aria-pressed=${chosen.has(value)} data-testid=${`${field}-filter`} data-value=${value} onClick=${() => toggle(value)}>${word(prefix, value)}</button>`)}</div></fieldset>`;
}

function AsOf({ query }) {
  const change = (event) => {
    const at = format.fromLocalInput(event.currentTarget.value);
    setQuery({ ...query, at: Number.isFinite(at) ? new Date(at).toISOString() : "" });
  };
  return html`<label class="field"><span>${t("alerts.asOfLabel")}</span>
    <input class="input" type="datetime-local" step="1" data-testid="as-of" max=${format.toLocalInput(serverNow())} value=${query.at ? format.toLocalInput(format.instant(query.at)) : ""} onChange=${change} /></label>`;
}

function fitsFilter({ status, severity, source, rule, service, acknowledged }) {
  const statuses = status ? status.split(",") : null;
  const severities = severity ? severity.split(",") : null;
  return (alert) => (!statuses || statuses.includes(alert.status)) && (!severities || severities.includes(alert.severity))
    && (!source || alert.series === source) && (!service || alert.labels?.service === service) && (!rule || alert.rule === rule)
    && (!acknowledged || String(Boolean(alert.acknowledgement)) === acknowledged);
}

function useLiveAlerts(list, filter, fresh) {
  const current = useRef({});
  current.current = { list, filter };
  useEffect(() => {
    let fade = 0;
    const stop = listen("alert", (messages) => {
      const { list: resource, filter: chosen } = current.current;
      if (chosen.at) return;
      const alerts = alertsOf(messages);
      const fits = fitsFilter(chosen);
      resource.mutate((data) => {
        const before = new Set(data.alerts.map((alert) => alert.id));
        const merged = mergeAlerts(data.alerts, alerts, fits, ROW_LIMIT);
        const added = merged.filter((alert) => !before.has(alert.id)).length;
        return { ...data, alerts: merged, total: data.total + added };
      });
      fresh.value = new Set(alerts.slice(-50).map((alert) => alert.id));
      clearTimeout(fade);
      fade = setTimeout(() => { fresh.value = new Set(); }, FRESH_MS);
    });
    return () => { stop(); clearTimeout(fade); };
  }, []);
}
