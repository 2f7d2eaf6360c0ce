// Events: what the system and others reported, newest first, with a live tail.
import { html, useEffect, useRef, useSignal } from "../dom.js";
import * as format from "../format.js";
import { known, t } from "../i18n.js";
import { usePages } from "../live/pages.js";
import { listen } from "../live/stream.js";
import { PageHead, useDebounced } from "../parts/shell.js";
import { Failure, ListFoot, Nothing, Waiting } from "../parts/states.js";
import { Table } from "../parts/table.js";
import { Moment } from "../parts/time.js";
import { route, setQuery } from "../router.js";

const PAGE_SIZE = 100;
const ROW_LIMIT = 500;
const HEARTBEATS = new Set(["consumidor_pulsou", "produtor_pulsou"]);
const TYPES = [
  "servico_iniciado", "servico_parado", "servico_registrado", "servico_removido", "servico_em_manutencao", "servico_em_operacao", "metrica_coletada", "sistema_indisponivel", "sistema_recuperado",
  "verificacao_alterada", "disjuntor_aberto", "disjuntor_meio_aberto", "disjuntor_fechado", "politica_medida", "simulacao_alterada", "simulacao_aplicada", "silencio_criado", "silencio_expirado", "transacao_iniciada", "transacao_completada", "transacao_falhada",
  "alerta_pendente", "alerta_gerado", "alerta_resolvido", "alerta_descartado", "alerta_reconhecido", "notificacao_enviada", "regra_alterada",
  "consumidor_entrou", "consumidor_saiu", "particoes_reatribuidas",
];

export function EventsPage() {
  const { query } = route.value;
  const source = useSignal(query.source ?? "");
  const type = useSignal(query.type ?? "");
  const correlation = useSignal(query.correlation_id ?? "");
  const typed = useDebounced(`${source.value.trim()}\n${type.value.trim()}\n${correlation.value.trim()}`, 300);
  const paused = useSignal(false);
  const [asSource, asType, asCorrelation] = typed.split("\n");
  useEffect(() => { setQuery({ ...route.peek().query, source: asSource, type: asType, correlation_id: asCorrelation }); }, [typed]);
  const filter = { source: asSource, type: asType, correlation_id: asCorrelation, from: query.from, to: query.to };
  const tail = !paused.value && !query.to;
  const list = usePages("/api/events", "events", { ...filter, limit: PAGE_SIZE }, { idOf: (event) => `${event.source} ${event.id}`, limit: ROW_LIMIT });
  const { rows } = list;
  useTail(tail, filter, list);

  const filtered = Object.values(filter).some(Boolean);
  const bound = (field) => (event) => {
    const at = format.fromLocalInput(event.currentTarget.value);
    setQuery({ ...query, [field]: Number.isFinite(at) ? new Date(at).toISOString() : "" });
  };
  const local = (text) => (text ? format.toLocalInput(format.instant(text)) : "");
  const input = (label, bind, testid, extra = {}) => html`<label class="field"><span>${label}</span><input class="input" data-testid=${testid} value=${bind.value} onInput=${(event) => { bind.value = event.currentTarget.value; }} ...${extra} /></label>`;

  return html`<div class="page">
    <${PageHead} title=${t("nav.events")}><span class="end">
      <button type="button" class="button" aria-pressed=${tail} disabled=${Boolean(query.to)} data-testid="live-tail" onClick=${() => { paused.value = tail; if (!tail) list.reload(); }}>${t(tail ? "events.live" : "events.paused")}</button></span><//>
    <form class="filters" onSubmit=${(event) => event.preventDefault()} aria-label=${t("filter.label")}>
      ${input(t("events.col.type"), type, "type-filter", { list: "event-types", "data-slash": "" })}
      <datalist id="event-types">${TYPES.map((each) => html`<option key=${each} value=${each}>${title(each)}</option>`)}</datalist>
      ${input(t("events.col.source"), source, "source-filter")}
      ${input(t("events.correlation"), correlation, "correlation-filter")}
      <label class="field time"><span>${t("filter.from")}</span><input class="input" type="datetime-local" step="1" value=${local(query.from)} onChange=${bound("from")} /></label>
      <label class="field time"><span>${t("filter.to")}</span><input class="input" type="datetime-local" step="1" value=${local(query.to)} onChange=${bound("to")} /></label>
      ${filtered && html`<button type="button" class="button" data-testid="clear-filters" onClick=${() => { source.value = type.value = correlation.value = ""; setQuery({}); }}>${t("filter.clear")}</button>`}
    </form>
    <${Failure} resource=${list} />
    <section class="panel long" aria-label=${t("nav.events")} aria-busy=${list.loading}>
      ${!list.data && !list.error && html`<${Waiting} />`}
      ${list.data && rows.length === 0 && html`<${Nothing}>${t(filtered ? "events.noneFound" : "events.none")}<//>`}
      ${rows.length > 0 && html`<${EventTable} rows=${rows} />
        <${ListFoot} more=${list.more} text=${t("events.shown", { n: format.integer(rows.length) })} />`}
    </section>
  </div>`;
}

function title(type) {
  return known(`event.${type}`) ? t(`event.${type}`) : type;
}

function EventTable({ rows }) {
  const columns = [
    { key: "time", className: "nowrap", render: (event) => html`<${Moment} at=${event.time} />` },
    { key: "type", className: "lead", render: (event) => html`<span><span class="break">${title(event.type)}</span>${known(`event.${event.type}`) && html` <code class="small muted low">${event.type}</code>`}</span>` },
    { key: "source", render: (event) => html`<span class="id" title=${event.source}>${event.source}</span>` },
    { key: "data", className: "wide bare", render: (event) => html`<${Data} event=${event} />` },
  ].map((column) => ({ ...column, label: t(`events.col.${column.key}`) }));
  return html`<${Table} caption=${t("nav.events")} columns=${columns} rows=${rows} rowKey=${(event) => `${event.source} ${event.id}`} testid="event-table"
    rowProps=${(event) => ({ "data-testid": "event-row", "data-type": event.type, "data-source": event.source })} />`;
}

const EXCERPT = 120;

function Data({ event }) {
  const open = useSignal(false);
  const text = event.data?.alert?.summary ?? (event.data && Object.keys(event.data).length ? JSON.stringify(event.data) : "");
  // The whole is written only when somebody opens it: a hundred rows of JSON would be heavy.
  return html`<details onToggle=${(toggle) => { open.value = toggle.currentTarget.open; }}>
    <summary class="break muted">${text.length > EXCERPT ? `${text.slice(0, EXCERPT)}…` : text || t("events.noData")}</summary>
    ${open.value && html`<pre class="code wrap" tabindex="0">${JSON.stringify(event, null, 2)}</pre>`}</details>`;
}

/** System and pipeline events come as they are; alerts come as transitions, so the list is asked for again. */
function useTail(tail, filter, list) {
  const state = useRef({});
  state.current = { tail, filter, list };
  useEffect(() => {
    let timer = 0;
    const arrived = (events) => {
      const { tail: follow, filter: chosen, list: resource } = state.current;
      if (!follow) return;
      const fitting = events.filter((event) => fits(event, chosen));
      if (fitting.length) resource.mutate((data) => ({ ...data, events: merged(data.events, fitting) }));
    };
    const alerts = () => {
      if (!state.current.tail || timer) return;
      timer = setTimeout(() => { timer = 0; state.current.list.reload(); }, 500);
    };
    const stops = [listen("event", arrived), listen("pipeline", arrived), listen("alert", alerts)];
    return () => { stops.forEach((stop) => stop()); clearTimeout(timer); };
  }, []);
}

function fits(event, { source, type, correlation_id: correlation, from }) {
  return !HEARTBEATS.has(event.type) && (!source || event.source === source) && (!type || event.type === type)
    && (!correlation || event.correlationid === correlation) && (!from || Date.parse(event.time) >= Date.parse(from));
}

function merged(events, added) {
  const had = new Set(events.map((event) => event.id));
  const fresh = added.filter((event) => !had.has(event.id));
  return [...fresh, ...events].sort((a, b) => Date.parse(b.time) - Date.parse(a.time)).slice(0, ROW_LIMIT);
}
