// One alert: why it fired, on which rule, what happened since, and who was told.
import { html, useEffect } from "../dom.js";
import * as format from "../format.js";
import { t, word } from "../i18n.js";
import { useResource } from "../live/resource.js";
import { listen } from "../live/stream.js";
import { AcknowledgeButton, given } from "../parts/acknowledge.js";
import { subjectOf } from "../parts/alert-rows.js";
import { AlertStatus, Level, Mark } from "../parts/icons.js";
import { because, summaryOf } from "../parts/sentences.js";
import { factOf } from "../parts/service-values.js";
import { PageHead } from "../parts/shell.js";
import { HeldBackBanner, SilenceButton, useSilences } from "../parts/silences.js";
import { FactRow, Failure, Nothing, Panel, Waiting } from "../parts/states.js";
import { Table } from "../parts/table.js";
import { Moment, Span } from "../parts/time.js";
import { RuleText } from "./rules.js";

/** Labels that stand elsewhere on the page. */
const HIDDEN_LABELS = new Set(["sensor_id", "unit"]);
const LABELS_SHOWN = 16;
const MARK_OF = { pending: "stale", resolved: "normal", dismissed: "stale", acknowledged: "info" };

export function AlertPage({ id }) {
  const resource = useResource(`/api/alerts/${encodeURIComponent(id)}`, { every: 15000 });
  useEffect(() => listen("alert", (messages) => {
    if (messages.some((message) => message.alert.id === id)) setTimeout(resource.reload, 150);
  }), [id]);
  // Notifications follow a transition; they travel as events.
  useEffect(() => listen("event", (messages) => {
    if (messages.some((message) => message.data?.alert_id === id)) setTimeout(resource.reload, 150);
  }), [id]);
  useEffect(() => { if (given.value.has(id)) resource.reload(); }, [given.value]);
  useSilences(resource.reload);
  const back = html`<a class="back" href="#/alerts">${t("nav.alerts")}</a><span class="muted" aria-hidden="true">/</span>`;
  if (!resource.data) {
    return html`<div class="page"><${PageHead} title=${t("alert.title")} before=${back} />
      ${resource.error?.status === 404 ? html`<p class="banner info" data-testid="not-found">${t("alert.unknown")}</p>` : html`<${Failure} resource=${resource} />`}
      ${resource.loading && html`<${Waiting} />`}</div>`;
  }
  const { alert, transitions, deliveries, evidence_readings: readings, evidence_events: events, silenced_by: silenced, inhibited_by: inhibited } = resource.data;
  return html`<div class="page alert" data-testid="alert-detail" data-alert-id=${alert.id} data-status=${alert.status} data-acknowledged=${Boolean(alert.acknowledgement)}>
    <${PageHead} title=${summaryOf(alert)} before=${back} />
    <${Failure} resource=${resource} />
    <section class="panel headline" aria-label=${t("alert.facts")}>
      <div class="headline-lead"><${Level} level=${alert.severity} testid="alert-severity" /><${AlertStatus} alert=${alert} /><${AcknowledgeButton} alert=${alert} primary /><${SilenceButton} alert=${{ ...alert, silenced_by: silenced }} /></div>
      <${Facts} alert=${alert} />
    </section>
    ${alert.acknowledgement && html`<div class="banner ok" data-testid="acknowledgement"><span>${t("alert.acknowledged", { by: alert.acknowledgement.by, time: format.dayAndClock(format.instant(alert.acknowledgement.at)) })}</span>
      ${alert.acknowledgement.comment && html`<q class="break">${alert.acknowledgement.comment}</q>`}</div>`}
    <${HeldBackBanner} silencedBy=${silenced} inhibitedBy=${inhibited} />
    <div class="two-columns">
      <div class="stack">
        <${Panel} title=${t("alert.timeline")} testid="timeline"><${Timeline} transitions=${transitions} alert=${alert} /><//>
        <${Deliveries} deliveries=${deliveries} />
      </div>
      <div class="stack">
        <${Evidence} readings=${readings} events=${events} />
        <${Panel} title=${t("alert.rule")} testid="alert-rule"><p class="note-line muted">${t("alert.ruleAsItStood")}</p><${RuleText} rule=${alert.rule_definition} /><//>
      </div>
    </div>
  </div>`;
}

function Facts({ alert }) {
  return html`<${FactRow} facts=${[
    [t("alerts.col.series"), html`<a class="break" href=${subjectOf(alert)}>${alert.series}</a>`],
    [t("alerts.col.rule"), html`<span class="break">${alert.rule}</span>`],
    [t("alerts.col.began"), html`<${Moment} at=${alert.began_at} />`],
    [t("alert.fired"), alert.fired_at && html`<${Moment} at=${alert.fired_at} />`],
    [t("alert.ended"), alert.ended_at && html`<${Moment} at=${alert.ended_at} />`],
    [t("alerts.col.lasted"), html`<${Span} from=${alert.began_at} to=${alert.ended_at} />`],
    [t("alerts.col.value"), typeof alert.value === "number" && format.quantity(alert.value, alert.labels?.unit)],
    ...Object.entries(alert.labels ?? {}).filter(([name]) => !HIDDEN_LABELS.has(name)).slice(0, LABELS_SHOWN).map(([name, value]) => [html`<code>${name}</code>`, value]),
  ]} />`;
}

function Timeline({ transitions, alert }) {
  const { severity } = alert;
  return html`<ol class="timeline">
    ${transitions.map((step) => html`<li key=${`${format.position(step.position)} ${step.kind}`} data-testid="transition" data-kind=${step.kind}>
      <span class=${`sev-${step.kind === "fired" ? severity : MARK_OF[step.kind]} timeline-mark sev`}><${Mark} level=${step.kind === "fired" ? severity : MARK_OF[step.kind]} /></span>
      <div>
        <p><span class="strong">${word("transition", step.kind)}</span> <span class="muted"><${Moment} at=${step.at} /></span></p>
        ${step.evidence && html`<p class="break">${because(step, alert)}</p>`}
        ${step.acknowledgement && html`<p class="break">${t("ack.by", { by: step.acknowledgement.by })}${step.acknowledgement.comment && html`: <q>${step.acknowledgement.comment}</q>`}</p>`}
        <p class="muted small">${t("alert.logged")} <code>${format.position(step.position)}</code>
          ${step.evidence?.positions?.length > 0 && html` · ${t("alert.because")} ${step.evidence.positions.map((at, i) => html`<code key=${format.position(at)}>${i > 0 ? ", " : ""}${format.position(at)}</code>`)}`}</p>
      </div></li>`)}
  </ol>`;
}

function Evidence({ readings, events }) {
  const rows = [...readings, ...events];
  const at = ({ reading, event }) => reading?.timestamp ?? event?.time;
  const columns = [
    { key: "time", label: t("sensor.time"), className: "lead nowrap", render: (row) => (at(row) ? html`<${Moment} at=${at(row)} />` : html`<span class="muted">${t("alert.readingGone")}</span>`) },
    events.length > 0 && { key: "event", label: t("events.col.type"), render: ({ event }) => event && html`<span class="break">${word("event", event.type)} <span class="muted small">${factOf(event.data)}</span></span>` },
    readings.length > 0 && { key: "value", label: t("sensors.col.value"), num: true, render: ({ reading }) => reading && format.quantity(reading.value, reading.unit) },
    { key: "position", label: t("sensor.position"), num: true, render: ({ position }) => html`<code class="small">${format.position(position)}</code>` },
  ].filter(Boolean);
  return html`<${Panel} title=${t("alert.evidence")} flush testid="evidence">
    ${rows.length === 0 && html`<${Nothing}>${t("alert.noEvidence")}<//>`}
    ${rows.length > 0 && html`<${Table} caption=${t("alert.evidence")} columns=${columns} rows=${rows} rowKey=${({ position }) => format.position(position)} rowProps=${({ position }) => ({ "data-testid": "evidence-row", "data-position": format.position(position) })} />`}
  <//>`;
}

function Deliveries({ deliveries }) {
  const columns = [
    { key: "target", label: t("alert.target"), className: "lead", render: (d) => html`<span class="break">${d.channel}${d.target && d.target !== d.channel ? ` → ${d.target}` : ""}</span>` },
    { key: "transition", label: t("alert.told"), render: (d) => word("transition", d.transition) },
    { key: "outcome", label: t("alert.outcome"), render: (d) => html`<span><span class=${`badge ${d.outcome}`}>${word("outcome", d.outcome)}</span> ${d.status && html`<span class="muted small">${d.status}</span>`} ${d.error && html`<span class="small break" lang="en">${d.error}</span>`}</span>` },
    { key: "attempt", label: t("alert.attempt"), num: true, render: (d) => format.integer(d.attempt) },
    { key: "at", label: t("alert.at"), render: (d) => html`<${Moment} at=${d.at} />` },
  ];
  return html`<${Panel} title=${t("alert.deliveries")} flush testid="deliveries">
    ${deliveries.length === 0 && html`<${Nothing}>${t("alert.noDeliveries")}<//>`}
    ${deliveries.length > 0 && html`<${Table} caption=${t("alert.deliveries")} columns=${columns} rows=${deliveries} rowKey=${(d) => `${d.channel} ${d.target} ${d.transition} ${d.attempt} ${d.at}`} rowProps=${(d) => ({ "data-testid": "delivery-row", "data-outcome": d.outcome })} />`}
  <//>`;
}
