// Overview: is everything well, and if not, where to look.
import { html, useEffect, useMemo, useRef, useSignal } from "../dom.js";
import { ThroughputChart, WINDOW_S } from "../chart/throughput.js";
import * as format from "../format.js";
import { t } from "../i18n.js";
import { serverNow } from "../live/clock.js";
import { useResource } from "../live/resource.js";
import { useMoves } from "../live/services.js";
import { status } from "../live/status.js";
import { listen } from "../live/stream.js";
import { AlertRows, alertsOf, mergeAlerts } from "../parts/alert-rows.js";
import { FirstReading } from "../parts/first-reading.js";
import { Level, Mark, ServiceState } from "../parts/icons.js";
import { problemText, refusal } from "../parts/sentences.js";
import { PageHead } from "../parts/shell.js";
import { Failure, Nothing, Panel, Waiting } from "../parts/states.js";
import { Moment } from "../parts/time.js";
import { link } from "../router.js";
import { SERVICE_STATES } from "./services.js";

const STATES = ["critical", "error", "warning", "info", "normal", "stale"];
const SEVERITIES = ["critical", "error", "warning", "info"];
const ALERTS_SHOWN = 9;
const TICKER_SHOWN = 10;
const TICKER_CHANGED = 2;
const TICKER_WAITING = 500;
const TICKER_PAUSE_MS = 1000;

export function OverviewPage() {
  const { data, error, reload } = status.value;
  // The first reading ends the emptiness at once, before the next answer of the API.
  const heard = useSignal(false);
  useEffect(() => listen("reading", (messages) => {
    if (!heard.peek() && messages.some((message) => message.readings.length > 0)) {
      heard.value = true;
      status.peek().reload();
    }
  }), []);
  const empty = data && data.sensors.total === 0 && !heard.value;
  return html`<div class="page overview">
    <${PageHead} title=${t("nav.overview")} />
    <${Failure} resource=${{ error, reload }} />
    ${!data && !error && html`<${Waiting} />`}
    ${data && html`<${StatusLine} data=${data} />`}
    ${empty && html`<${FirstReading} /><div class="overview-grid"><${ServicesPanel} /><${AlertsPanel} data=${data} /><${NewestAlerts} /></div>`}
    ${data && !empty && html`
      <div class="overview-grid">
        <${SensorsPanel} data=${data} />
        <${AlertsPanel} data=${data} />
        <${ServicesPanel} />
        <${Throughput} data=${data} />
        <${PipelinePanel} data=${data} />
        <${NewestAlerts} />
        <${Ticker} />
      </div>`}
  </div>`;
}

function StatusLine({ data }) {
  const ok = data.status === "ok";
  return html`<div class=${`banner status-line ${ok ? "ok" : "warning"}`} data-testid="system-status" data-status=${data.status}>
    <span class=${`sev ${ok ? "sev-normal" : "sev-warning"} strong`}><${Mark} level=${ok ? "normal" : "warning"} />${t(ok ? "status.ok" : "status.degraded")}</span>
    ${data.problems.length > 0 && html`<ul data-testid="problems">${data.conditions.map((problem) => html`<li key=${problem.text}>${problemText(problem)}</li>`)}</ul>`}
    <span class="muted status-facts">
      <span>${t("status.uptime", { span: format.duration(data.uptime_s * 1000) })}</span>
      ${data.demo && html`<span>${t("status.demo")}</span>`}
      <span class="low">${t("status.memory", { size: format.bytes(data.process?.memory_bytes) })}</span>
      <span class="low break">${t("status.data")} <code>${data.data_dir}</code></span>
    </span>
  </div>`;
}

function SensorsPanel({ data }) {
  const { total, by_state: counts } = data.sensors;
  return html`<${Panel} title=${t("overview.sensors")} testid="sensors-by-state" end=${html`<a href=${link(["sensors"])}>${t("overview.all")}</a>`}>
    <p class="figure" data-testid="sensors-total">${format.integer(total)}</p>
    <div class="bar" aria-hidden="true">${STATES.map((state) => counts[state] > 0 && html`<span key=${state} class=${`bar-${state}`} style=${{ flexGrow: counts[state] }}></span>`)}</div>
    <ul class="counts">
      ${STATES.map((state) => html`<li key=${state} class=${counts[state] ? "" : "zero"}>
        <a href=${link(["sensors"], { state })} data-testid="state-count" data-state=${state} data-count=${counts[state] ?? 0}><${Level} level=${state} /><span class="n">${format.integer(counts[state] ?? 0)}</span></a></li>`)}
    </ul>
  <//>`;
}

/** Services by state, with a way to the list of each. */
function ServicesPanel() {
  const services = useResource("/api/services", { query: { limit: 1 }, every: 10000 });
  useMoves([services]);
  const counts = services.data?.by_state;
  return html`<${Panel} title=${t("nav.services")} testid="services-by-state" end=${html`<a href=${link(["services"])}>${t("overview.all")}</a>`}>
    <p class="figure" data-testid="services-total">${format.integer(services.data?.total)}</p>
    <ul class="counts">
      ${counts && SERVICE_STATES.map((state) => html`<li key=${state} class=${counts[state] ? "" : "zero"}>
        <a href=${link(["services"], { state })} data-testid="service-count" data-state=${state} data-count=${counts[state]}><${ServiceState} state=${state} testid="state-word" /><span class="n">${format.integer(counts[state])}</span></a></li>`)}
    </ul>
  <//>`;
}

function AlertsPanel({ data }) {
  const { firing, pending, unacknowledged } = data.alerts;
  const total = SEVERITIES.reduce((sum, severity) => sum + (firing[severity] ?? 0), 0);
  return html`<${Panel} title=${t("overview.firing")} testid="alerts-by-severity" end=${html`<a href=${link(["alerts"])}>${t("overview.all")}</a>`}>
    <p class="figure" data-testid="firing-total">${format.integer(total)}</p>
    <ul class="counts">
      ${SEVERITIES.map((severity) => html`<li key=${severity} class=${firing[severity] ? "" : "zero"}>
        <a href=${link(["alerts"], { status: "firing", severity })} data-testid="firing-count" data-severity=${severity} data-count=${firing[severity] ?? 0}><${Level} level=${severity} /><span class="n">${format.integer(firing[severity] ?? 0)}</span></a></li>`)}
    </ul>
    <ul class="counts second">
      <li class=${unacknowledged ? "" : "zero"}><a href=${link(["alerts"], { status: "firing", acknowledged: "false" })} data-testid="unacknowledged-count"><span>${t("overview.unacknowledged")}</span><span class="n">${format.integer(unacknowledged)}</span></a></li>
      <li class=${pending ? "" : "zero"}><a href=${link(["alerts"], { status: "pending" })} data-testid="pending-count"><span>${t("overview.pending")}</span><span class="n">${format.integer(pending)}</span></a></li>
    </ul>
  <//>`;
}

/** History from the API, carried on by the totals of the stream; the API's exact figures replace them every 15 s. */
function Throughput({ data }) {
  const metrics = useResource("/api/real-time-metrics", { every: 15000 });
  const live = useRef({ history: [], current: 0 });
  const shown = useSignal({ history: [], now: serverNow() });

  useEffect(() => {
    if (!metrics.data) return;
    live.current.history = metrics.data.history.map((p) => ({ at: Date.parse(p.at), readings: p.readings, rejected: p.rejected })).sort((a, b) => a.at - b.at);
    shown.value = { history: live.current.history.slice(), now: serverNow() };
  }, [metrics.data]);
  useEffect(() => {
    const stop = listen("reading", (messages) => {
      for (const message of messages) if (!message.initial) live.current.current += message.total ?? message.readings.length;
    });
    const timer = setInterval(() => {
      const now = serverNow();
      const { history, current } = live.current;
      live.current.current = 0;
      history.push({ at: now - 1000, readings: current, rejected: 0 });
      while (history.length > WINDOW_S + 30 || (history.length && history[0].at < now - WINDOW_S * 1000)) history.shift();
      if (!document.hidden) shown.value = { history: history.slice(), now };
    }, 1000);
    return () => { stop(); clearInterval(timer); };
  }, []);

  const { history, now } = shown.value;
  return html`<${Panel} title=${t("overview.throughput")} className="throughput" testid="throughput"
      end=${html`<span class="muted small">${t("overview.window")}</span>`}>
    <div class="throughput-figures">
      <p class="figure" data-testid="readings-per-s">${format.rate(data.throughput.readings_per_s)}<span class="unit">${t("overview.perSecond")}</span></p>
      <dl class="facts">
        <dt>${t("overview.accepted")}</dt><dd data-testid="accepted-total">${format.integer(metrics.data?.accepted_total)}</dd>
        <dt>${t("overview.rejected")}</dt><dd data-testid="rejected-total" class=${metrics.data?.rejected_total ? "sev-error strong" : ""}>${format.integer(metrics.data?.rejected_total)}</dd>
      </dl>
    </div>
    <${ThroughputChart} history=${history} now=${now} />
  <//>`;
}

function PipelinePanel({ data }) {
  const consumers = useResource("/api/consumer-health", { every: 4000, on: ["pipeline"] });
  const list = consumers.data?.consumers ?? [];
  const active = list.filter((consumer) => consumer.status === "active");
  // One that never reported (a notifier, say) can't have fallen silent.
  const lost = list.filter((consumer) => consumer.status === "expelled" || (consumer.status === "stale" && consumer.last_heartbeat)).length;
  const lag = active.reduce((sum, consumer) => sum + consumer.lag_records, 0);
  const slowest = active.reduce((most, consumer) => Math.max(most, consumer.lag_ms), 0);
  const views = data.views ?? [];
  const broken = views.filter((view) => !view.ok);
  const viewLag = views.reduce((most, view) => Math.max(most, view.lag_records), 0);
  const topics = data.log?.topics ?? [];
  const size = topics.reduce((sum, topic) => sum + topic.bytes, 0);
  const row = (name, ok, value, detail, testid) => html`<li key=${name} data-testid=${testid} data-ok=${ok}>
    <span class=${`sev ${ok ? "sev-normal" : "sev-warning"}`}><${Mark} level=${ok ? "normal" : "warning"} /><span class="ink">${name}</span></span>
    <span class="n">${value}</span><span class="muted small">${detail}</span></li>`;
  return html`<${Panel} title=${t("overview.pipeline")} testid="pipeline-health" end=${html`<a href=${link(["pipeline"])}>${t("overview.open")}</a>`}>
    <ul class="health">
      ${row(t("overview.workers"), lost === 0 && active.length > 0, format.integer(active.length), lost ? t("overview.workersLost", { n: lost }) : t("overview.workersActive"), "health-workers")}
      ${row(t("overview.lag"), slowest < 5000, format.compact(lag), t("overview.lagDetail", { span: format.duration(slowest) }), "health-lag")}
      ${row(t("overview.views"), broken.length === 0, format.integer(views.length), broken.length ? broken.map((view) => view.name).join(", ") : t("overview.viewsDetail", { n: format.integer(viewLag) }), "health-views")}
      ${row(t("overview.log"), !data.log?.poisoned, format.bytes(size), refusal(data.log) ?? t("overview.logDetail", { n: format.compact(topics.reduce((sum, topic) => sum + topic.records, 0)) }), "health-log")}
    </ul>
  <//>`;
}

function NewestAlerts() {
  const alerts = useResource("/api/alerts", { query: { limit: ALERTS_SHOWN, status: "firing,resolved,pending" }, every: 30000, on: [] });
  useEffect(() => listen("alert", (messages) => {
    alerts.mutate((data) => ({ ...data, alerts: mergeAlerts(data.alerts, alertsOf(messages), (alert) => alert.status !== "dismissed", ALERTS_SHOWN) }));
  }), []);
  const list = alerts.data?.alerts ?? [];
  return html`<${Panel} title=${t("overview.newestAlerts")} className="newest-alerts" flush testid="newest-alerts" end=${html`<a href=${link(["alerts"])}>${t("overview.all")}</a>`}>
    <${Failure} resource=${alerts} />
    ${alerts.data && list.length === 0 && html`<${Nothing}>${t("overview.noAlerts")}<//>`}
    ${list.length > 0 && html`<${AlertRows} alerts=${list} caption=${t("overview.newestAlerts")} columns=${["summary", "status", "series", "beganAgo", "acknowledged"]} />`}
  <//>`;
}

/**
 * The newest readings, at a pace that can be read: lines stay where they are and change in place, and once a second at
 * most two lines, those that were silent longest, make room for sensors that are not shown yet.
 */
function Ticker() {
  const initial = useResource("/api/sensors", { query: { sort: "-last_seen", limit: TICKER_SHOWN } });
  const lines = useSignal([]);
  const waiting = useMemo(() => new Map(), []);
  useEffect(() => {
    const sensors = initial.data?.sensors;
    if (!sensors || lines.peek().length) return;
    lines.value = sensors.map((s) => ({ sensor_id: s.sensor_id, value: s.last_value, unit: s.unit, timestamp: s.last_timestamp }));
  }, [initial.data]);
  useEffect(() => {
    let timer = 0;
    const show = () => {
      timer = 0;
      lines.value = shuffled(lines.peek(), waiting);
      waiting.clear();
    };
    const stop = listen("reading", (messages) => {
      for (const message of messages) {
        for (const reading of message.readings) {
          waiting.delete(reading.sensor_id);
          waiting.set(reading.sensor_id, reading);
        }
      }
      while (waiting.size > TICKER_WAITING) waiting.delete(waiting.keys().next().value);
      // What comes after silence is shown at once, the rest at the pace of reading.
      if (!timer) {
        if (lines.peek().length < TICKER_SHOWN) show();
        timer = setTimeout(show, TICKER_PAUSE_MS);
      }
    });
    return () => { stop(); clearTimeout(timer); };
  }, []);
  return html`<${Panel} title=${t("overview.newestReadings")} className="ticker" flush testid="ticker" end=${html`<a href=${link(["sensors"], { sort: "-last_seen" })}>${t("overview.all")}</a>`}>
    <ul class="ticker-list">
      ${lines.value.map((line) => html`<li key=${line.sensor_id} data-testid="ticker-row" data-sensor-id=${line.sensor_id}>
        <a class="id" title=${line.sensor_id} href=${link(["sensors", line.sensor_id])}>${line.sensor_id}</a>
        <span class="n" data-testid="ticker-value">${format.quantity(line.value, line.unit)}</span>
        <span class="muted small when"><${Moment} at=${line.timestamp} brief /></span></li>`)}
    </ul>
  <//>`;
}

function shuffled(lines, waiting) {
  const next = lines.map((line) => waiting.get(line.sensor_id) ?? line);
  const shown = new Set(lines.map((line) => line.sensor_id));
  const others = [...waiting.values()].reverse().filter((reading) => !shown.has(reading.sensor_id));
  while (next.length < TICKER_SHOWN && others.length) next.push(others.shift());
  const silent = next.map((_, place) => place).filter((place) => !waiting.has(next[place].sensor_id))
    .sort((a, b) => Date.parse(next[a].timestamp) - Date.parse(next[b].timestamp));
  for (const place of silent.slice(0, TICKER_CHANGED)) if (others.length) next[place] = others.shift();
  return next;
}
