// Acknowledging an alert: a button in each row, one dialog for the page.
import { html, signal } from "../dom.js";
import { get, post } from "../api.js";
import { t } from "../i18n.js";
import { notify } from "../live/notices.js";
import { Level } from "./icons.js";
import { PersonDialog } from "./person.js";
import { summaryOf } from "./sentences.js";

const asked = signal(null);
const STATUS_TRIES = 20;

/** Acknowledgements given on this page, by alert: shown at once, before the stream brings them. */
export const given = signal(new Map());

export function AcknowledgeButton({ alert, primary }) {
  const open = alert.status === "firing" || alert.status === "pending";
  if (!open || alert.acknowledgement || given.value.has(alert.id)) return null;
  return html`<button type="button" class=${primary ? "button primary" : "button small"} data-testid="ack-button" data-alert-id=${alert.id}
    aria-label=${t("ack.label", { summary: summaryOf(alert) })} onClick=${() => { asked.value = alert; }}>${t("ack.button")}</button>`;
}

export function AcknowledgeDialog() {
  const alert = asked.value;
  return alert && html`<${PersonDialog} key=${alert.id} prefix="ack" title=${t("ack.title")} text=${html`<${Level} level=${alert.severity} /> ${summaryOf(alert)}`} action=${t("ack.button")}
    onSubmit=${({ by, comment }) => acknowledge(alert, by, comment)} onClose=${() => { asked.value = null; }} />`;
}

async function acknowledge(alert, by, comment) {
  const path = `/api/alerts/${encodeURIComponent(alert.id)}/acknowledge`;
  const { status, body } = await post(path, comment ? { by, comment } : { by }).catch((error) => {
    throw error.status === 409 ? new Error(`${t("ack.conflict")} ${error.message}`) : error;
  });
  if (status === 202) await follow(body.correlation_id);
  const done = new Map(given.peek());
  done.set(alert.id, body.alert?.acknowledgement ?? { by, comment, at: new Date().toISOString() });
  // Bounded: the stream and the API have the lasting truth.
  while (done.size > 500) done.delete(done.keys().next().value);
  given.value = done;
  notify(t("ack.done", { series: alert.series }));
}

/** The command is in the log, the view hasn't shown it yet: ask until it is done. */
async function follow(correlationId) {
  for (let attempt = 0; attempt < STATUS_TRIES; attempt += 1) {
    const answer = await get(`/status/${encodeURIComponent(correlationId)}`);
    if (answer.status === "completed") return;
    if (answer.status === "failed") throw new Error(answer.error ?? t("ack.failed"));
    await new Promise((resolve) => setTimeout(resolve, 500));
  }
  throw new Error(t("ack.slow"));
}
