// Alerts as rows: the same on the overview, on the alerts page and on a sensor's page.
import { html } from "../dom.js";
import { quantity } from "../format.js";
import { t } from "../i18n.js";
import { link } from "../router.js";
import { AcknowledgeButton } from "./acknowledge.js";
import { AlertStatus, Level } from "./icons.js";
import { summaryOf } from "./sentences.js";
import { HeldBack, SilenceButton } from "./silences.js";
import { Table } from "./table.js";
import { Ago, Moment, Span } from "./time.js";

const COLUMNS = {
  summary: { key: "summary", className: "lead summary-cell", render: (alert) => html`<a class="break" href=${link(["alerts", alert.id])}>${summaryOf(alert)}</a>` },
  status: { key: "status", className: "bare", render: (alert) => html`<span class="cell-line"><${AlertStatus} alert=${alert} /><${HeldBack} alert=${alert} /></span>` },
  severity: { key: "severity", className: "bare", render: (alert) => html`<${Level} level=${alert.severity} testid="alert-severity" />` },
  series: { key: "series", render: (alert) => html`<a class="id" title=${alert.series} href=${subjectOf(alert)}>${isService(alert) ? alert.labels.service : alert.series}</a>` },
  rule: { key: "rule", className: "low far", render: (alert) => html`<span class="id" title=${alert.rule}>${alert.rule}</span>` },
  value: { key: "value", num: true, className: "low mid", render: (alert) => quantity(alert.value, alert.labels?.unit) },
  began: { key: "began", render: (alert) => html`<${Moment} at=${alert.began_at} />` },
  beganAgo: { key: "began", num: true, render: (alert) => html`<${Ago} at=${alert.began_at} />` },
  lasted: { key: "lasted", num: true, render: (alert) => html`<${Span} from=${alert.began_at} to=${alert.ended_at} />` },
  acknowledged: {
    key: "acknowledged", className: "bare wide", render: (alert) => alert.acknowledgement
      ? html`<span class="cell-line"><span class="small muted" title=${alert.acknowledgement.comment}>${t("ack.by", { by: alert.acknowledgement.by })}</span><${SilenceButton} alert=${alert} /></span>`
      : html`<span class="cell-line"><${AcknowledgeButton} alert=${alert} /><${SilenceButton} alert=${alert} /></span>`,
  },
};

const isService = ({ labels }) => Boolean(labels?.service && !labels.sensor_id);

/** The page of what an alert is about: a sensor, or the service that its labels name. */
export const subjectOf = (alert) => (isService(alert) ? link(["services", alert.labels.service]) : link(["sensors", alert.series]));

export function AlertRows({ alerts, columns, caption, fresh, testid }) {
  const shown = columns.map((name) => ({ ...COLUMNS[name], label: t(`alerts.col.${COLUMNS[name].key}`) }));
  return html`<${Table} caption=${caption} columns=${shown} rows=${alerts} rowKey=${(alert) => alert.id} testid=${testid} rowProps=${(alert) => ({
    href: link(["alerts", alert.id]), className: fresh?.has(alert.id) ? "fresh" : "", "data-testid": "alert-row", "data-alert-id": alert.id,
    "data-status": alert.status, "data-severity": alert.severity, "data-series": alert.series, "data-acknowledged": Boolean(alert.acknowledgement),
  })} />`;
}

/** `alerts` with `changes` (the newest state of some) laid over it: known ones replaced in place, new ones by their beginning. */
export function mergeAlerts(alerts, changes, fits, limit) {
  const newest = new Map(changes.map((alert) => [alert.id, alert]));
  const kept = alerts.flatMap((alert) => {
    const change = newest.get(alert.id);
    newest.delete(alert.id);
    // One that no longer fits the filter leaves the list.
    return change === undefined ? [alert] : fits(change) ? [withAcknowledgement(change, alert)] : [];
  });
  const added = [...newest.values()].filter(fits);
  if (added.length === 0) return kept;
  return [...added, ...kept].sort((a, b) => Date.parse(b.began_at) - Date.parse(a.began_at)).slice(0, limit);
}

/** A transition written before the acknowledgement was known doesn't take it away; what holds the alert back only the API tells. */
function withAcknowledgement({ ...change }, before) {
  change.silenced_by ??= before.silenced_by;
  change.inhibited_by ??= before.inhibited_by;
  const alert = change.acknowledgement || !before.acknowledgement ? change : { ...change, acknowledgement: before.acknowledgement };
  // An acknowledgement carries the alert as its sender saw it, which may be older than what is known here.
  return before.ended_at && !alert.ended_at ? { ...before, acknowledgement: alert.acknowledgement } : alert;
}

/** The alerts of transitions as they stand after them, with acknowledgements in. */
export function alertsOf(transitions) {
  return transitions.map(({ alert, acknowledgement }) => (acknowledgement && !alert.acknowledgement ? { ...alert, acknowledgement } : alert));
}
