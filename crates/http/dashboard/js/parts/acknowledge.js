// Acknowledging an alert: a button in each row, one dialog for the page.
import { html, signal, useEffect, useId, useRef, useState } from "../dom.js";
import { get, post } from "../api.js";
import { t } from "../i18n.js";
import { notify } from "../live/notices.js";
import { remember, remembered } from "../prefs.js";
import { Level } from "./icons.js";
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
  return alert && html`<${Dialog} key=${alert.id} alert=${alert} />`;
}

function Dialog({ alert }) {
  const dialog = useRef(null);
  const id = useId();
  const [by, setBy] = useState(remembered("name") ?? "");
  const [comment, setComment] = useState("");
  const [sending, setSending] = useState(false);
  const [problem, setProblem] = useState(null);
  useEffect(() => {
    dialog.current.showModal();
  }, []);

  const submit = async (event) => {
    event.preventDefault();
    const name = by.trim();
    if (!name) return setProblem(t("ack.nameMissing"));
    setSending(true);
    setProblem(null);
    try {
      await acknowledge(alert, name, comment.trim());
      remember("name", name);
      dialog.current.close();
    } catch (error) {
      setProblem(error.status === 409 ? `${t("ack.conflict")} ${error.message}` : error.message);
      setSending(false);
    }
  };

  return html`<dialog ref=${dialog} aria-labelledby=${`${id}-title`} data-testid="ack-dialog" onClose=${() => { asked.value = null; }}>
    <form onSubmit=${submit} novalidate>
      <div class="dialog-body">
        <h2 id=${`${id}-title`}>${t("ack.title")}</h2>
        <p class="break"><${Level} level=${alert.severity} /> ${summaryOf(alert)}</p>
        <label class="field"><span>${t("ack.name")}</span>
          <input class="input" data-testid="ack-name" autocomplete="name" maxlength="200" required autofocus value=${by} aria-invalid=${problem !== null && !by.trim()} onInput=${(event) => setBy(event.currentTarget.value)} /></label>
        <label class="field"><span>${t("ack.comment")}</span>
          <textarea class="input" data-testid="ack-comment" rows="3" maxlength="2000" value=${comment} onInput=${(event) => setComment(event.currentTarget.value)}></textarea></label>
        ${problem && html`<p class="banner error" role="alert" data-testid="ack-error">${problem}</p>`}
      </div>
      <div class="dialog-actions">
        <button type="button" class="button" data-testid="ack-cancel" onClick=${() => dialog.current.close()}>${t("action.cancel")}</button>
        <button type="submit" class="button primary" data-testid="ack-submit" disabled=${sending}>${t(sending ? "ack.sending" : "ack.button")}</button>
      </div>
    </form>
  </dialog>`;
}

async function acknowledge(alert, by, comment) {
  const path = `/api/alerts/${encodeURIComponent(alert.id)}/acknowledge`;
  const { status, body } = await post(path, comment ? { by, comment } : { by });
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
