// Services: how each is, the machine itself first; filtered by state and text, each row following the stream.
import { html, useEffect, useSignal } from "../dom.js";
import * as format from "../format.js";
import { t, word } from "../i18n.js";
import { usePages } from "../live/pages.js";
import { useMeasured, useMoves, withMetrics } from "../live/services.js";
import { Copyable } from "../parts/copy.js";
import { ServiceState } from "../parts/icons.js";
import { reasonOf } from "../parts/sentences.js";
import { distance, memoryText, metricText } from "../parts/service-values.js";
import { PageHead, useDebounced } from "../parts/shell.js";
import { Failure, ListFoot, Nothing, Waiting } from "../parts/states.js";
import { Table } from "../parts/table.js";
import { Ago } from "../parts/time.js";
import { link, route, setQuery } from "../router.js";

const PAGE_SIZE = 200;
/** Rows that the page keeps at most; further ones are reached by narrowing the filter. */
const ROW_LIMIT = 1000;
/** The gravest first, as it is sorted by state. */
export const SERVICE_STATES = ["down", "degraded", "unknown", "maintenance", "starting", "up"];

export function ServicesPage() {
  const { query } = route.value;
  const typed = useSignal(query.search ?? "");
  const search = useDebounced(typed.value.trim(), 250);
  useEffect(() => { if ((route.peek().query.search ?? "") !== search) setQuery({ ...route.peek().query, search }); }, [search]);
  const list = usePages("/api/services", "services", { search, state: query.state, limit: PAGE_SIZE }, { idOf: (s) => s.service, limit: ROW_LIMIT, every: 10000, on: ["alert"], settle: 500 });
  useMoves([list]);
  const names = new Set(list.rows.map((s) => s.service));
  useMeasured((events) => {
    // One that isn't on the page may belong here.
    if (events.some((event) => event.type === "metrica_coletada" && !names.has(event.source)) && !search && !query.state) list.reload();
    list.mutate((data) => ({ ...data, services: data.services.map((service) => withMetrics(service, events)) }));
  });
  const rows = sorted(list.rows, query.sort);
  const filtered = Boolean(search || query.state);
  const none = list.data && !filtered && rows.every((service) => distance(service) < 2);
  return html`<div class="page">
    <${PageHead} title=${t("nav.services")}><span class="muted" data-testid="services-found">${list.data && t("sensors.found", { n: format.integer(list.data.total) })}</span><//>
    <form class="filters" role="search" onSubmit=${(event) => event.preventDefault()}>
      <label class="field grow"><span>${t("sensors.search")} <kbd class="low">/</kbd></span>
        <input class="input" type="search" data-testid="service-search" data-slash value=${typed.value} placeholder=${t("services.searchHint")} onInput=${(event) => { typed.value = event.currentTarget.value; }} /></label>
      <${States} counts=${list.data?.by_state ?? {}} query=${query} />
      ${filtered && html`<button type="button" class="button" data-testid="clear-filters" onClick=${() => { typed.value = ""; setQuery({ sort: query.sort }); }}>${t("filter.clear")}</button>`}
    </form>
    <${Failure} resource=${list} />
    ${(!none || rows.length > 0) && html`<section class="panel long" aria-label=${t("nav.services")} aria-busy=${list.loading}>
      ${!list.data && !list.error && html`<${Waiting} />`}
      ${list.data && rows.length === 0 && html`<${Nothing}>${t("services.noneFound")}<//>`}
      ${rows.length > 0 && html`<${ServiceTable} rows=${rows} sort=${query.sort} />
        <${ListFoot} more=${list.more} text=${t("page.shown", { shown: format.integer(rows.length), total: format.integer(Math.max(list.data.total, rows.length)) })} />`}
    </section>`}
    ${none && html`<${FirstService} />`}
  </div>`;
}

/** Toggle buttons with how many services are in each state, whatever the filter. */
function States({ counts, query }) {
  const chosen = new Set((query.state ?? "").split(",").filter(Boolean));
  const toggle = (state) => {
    const next = new Set(chosen);
    if (!next.delete(state)) next.add(state);
    setQuery({ ...query, state: SERVICE_STATES.filter((each) => next.has(each)).join(",") });
  };
  return html`<fieldset class="choices"><legend class="legend">${t("sensors.col.state")}</legend>
    <div class="segments">${SERVICE_STATES.map((state) => html`<button key=${state} type="button" class="button" aria-pressed=${chosen.has(state)} data-testid="service-state-filter" data-state=${state} data-count=${counts[state] ?? 0}
      onClick=${() => toggle(state)}><${ServiceState} state=${state} testid="state-word" /><span class=${counts[state] ? "strong" : "muted"}>${format.integer(counts[state] ?? 0)}</span></button>`)}</div></fieldset>`;
}

const VALUE_OF = { service: (s) => s.service, state: (s) => SERVICE_STATES.indexOf(s.state), memory: (s) => s.memory_percent ?? s.memory_bytes };

/** By the column that was asked for; without one the machine first, then Farol itself, then by name. */
function sorted(rows, sort) {
  if (!sort) return [...rows].sort((a, b) => distance(a) - distance(b));
  const field = sort.replace(/^-/, "");
  const valueOf = VALUE_OF[field] ?? ((s) => s[field]);
  const sign = sort.startsWith("-") ? -1 : 1;
  // What has no value stands last in both directions.
  const compare = (a, b) => (a === b ? 0 : a === null || a === undefined ? sign : b === null || b === undefined ? -sign : a < b ? -1 : 1);
  return [...rows].sort((a, b) => sign * compare(valueOf(a), valueOf(b)));
}

function ServiceTable({ rows, sort }) {
  const number = (field) => ({ key: field, sort: field, num: true, render: (s) => html`<span data-testid=${field} data-value=${s[field]}>${metricText(field, s[field])}</span>` });
  const columns = [
    { key: "service", sort: "service", className: "lead", render: (s) => html`<a class="id" title=${s.service} href=${link(["services", s.service])}>${s.service}</a>${s.kind && html` <span class="muted small">${word("kind", s.kind)}</span>`}` },
    { key: "state", sort: "state", className: "bare", render: (s) => html`<${StateCell} service=${s} />` },
    number("response_time_ms"), number("error_rate_percent"), number("requests_per_second"), number("cpu_percent"),
    { key: "memory", sort: "memory", num: true, render: (s) => memoryText(s) },
    { key: "uptime_seconds", sort: "uptime_seconds", num: true, className: "low mid", render: (s) => metricText("uptime_seconds", s.uptime_seconds) },
    { key: "last_check", num: true, className: "low", render: (s) => html`<${LastCheck} service=${s} />` },
  ].map((column) => ({ ...column, label: t(`services.col.${column.key}`) }));
  return html`<${Table} caption=${t("nav.services")} columns=${columns} rows=${rows} rowKey=${(s) => s.service} sort=${sort} testid="service-table"
    onSort=${(next) => setQuery({ ...route.peek().query, sort: next })}
    rowProps=${(s) => ({ href: link(["services", s.service]), "data-testid": "service-row", "data-service": s.service, "data-state": s.state })} />`;
}

function StateCell({ service }) {
  return html`<span title=${reasonOf(service)}><${ServiceState} state=${service.state} />
    ${service.breakers_open > 0 && html` <a class="badge open" href=${link(["services", service.service])}>${t("services.breakersOpen", { n: format.integer(service.breakers_open) })}</a>`}</span>`;
}

/** When, and how many of how many checks hold; of one without checks, when it was last heard of. */
function LastCheck({ service }) {
  if (service.checks === 0) return html`<span class="muted"><${Ago} at=${service.last_check_at ?? service.last_seen} /></span>`;
  return html`<span><span class=${service.checks_down > 0 ? "sev-critical" : "muted"}>${format.integer(service.checks - service.checks_down)}/${format.integer(service.checks)}</span> <span class="muted"><${Ago} at=${service.last_check_at ?? service.last_seen} /></span></span>`;
}

/** What stands below the machine and Farol itself, as long as there is no other service: how to get one. */
function FirstService() {
  const event = `{"specversion":"1.0","id":"1","type":"metrica_coletada","source":"shop",\n       "data":{"nome":"response_time_ms","valor":42.5,"unidade":"ms"}}`;
  const curl = `curl -X POST ${location.origin}/api/events \\\n  -H 'Content-Type: application/cloudevents+json' \\\n  -d '${event}'`;
  const toml = `[[services]]\nname = "shop"\nchecks = [{ http = "http://127.0.0.1:8080/health", interval = "10s" }]`;
  return html`<section class="panel first-reading" aria-labelledby="first-title" data-testid="no-services">
    <div class="panel-body">
      <h2 id="first-title">${t("services.first.title")}</h2>
      <p>${t("services.first.text")}</p>
      <h3>${t("services.first.simulate")}</h3>
      <${Copyable} text="farol simulate services" testid="simulate-command" />
      <h3>${t("services.first.settings")} <code>farol.toml</code></h3>
      <${Copyable} text=${toml} testid="settings-snippet" />
      <h3>${t("services.first.event")}</h3>
      <${Copyable} text=${curl} testid="service-curl" />
    </div>
  </section>`;
}
