// Silences: which alerts nobody is told about, by whose will and until when. A button in each row, one dialog for the page, one list.
import { html, signal, useEffect, useState } from "../dom.js";
import { post, send } from "../api.js";
import * as format from "../format.js";
import { t, word } from "../i18n.js";
import { notify } from "../live/notices.js";
import { useResource } from "../live/resource.js";
import { remembered } from "../prefs.js";
import { link } from "../router.js";
import { Icon } from "./icons.js";
import { PersonDialog } from "./person.js";
import { summaryOf } from "./sentences.js";
import { Failure, Nothing, Panel } from "./states.js";
import { Table } from "./table.js";
import { Moment } from "./time.js";

const DURATIONS = ["30m", "1h", "2h", "8h", "1d", "7d"];
const LIMIT = 200;
/** How many of those that are over are listed. */
const EXPIRED_SHOWN = 20;

/** The silences that this page knows, by id; null until it has asked, and where nobody can silence. */
const book = signal(null);
const asked = signal(null);

const TELL_OF_SILENCES = ["silencio_criado", "silencio_expirado", "servico_em_manutencao", "servico_em_operacao"];
const tellsOfSilence = (event) => TELL_OF_SILENCES.includes(event.type);

/** Keeps the book while it is mounted; `onChange` when a silence came or went. */
export function useSilences(onChange) {
  const running = useResource("/api/silences", { query: { state: "active,pending", limit: LIMIT }, every: 15000, on: ["event"], only: tellsOfSilence, settle: 150 });
  useEffect(() => { book.value = running.data ? new Map(running.data.silences.map((each) => [each.id, each])) : null; }, [running.data]);
  const ids = running.data?.silences.map((each) => `${each.id}${each.state}${each.ends_at}`).join() ?? null;
  useEffect(() => { if (ids !== null) onChange?.(); }, [ids]);
  return running;
}

export function SilenceButton({ alert }) {
  const open = alert.status === "firing" || alert.status === "pending";
  if (!open || book.value === null || alert.silenced_by?.length) return null;
  return html`<button type="button" class="button small" data-testid="silence-button" data-alert-id=${alert.id} title=${t("silence.button")}
    aria-label=${t("silence.label", { summary: summaryOf(alert) })} onClick=${() => { asked.value = alert; }}><${Icon} name="silence" /></button>`;
}

/** Beside an alert's status: that nobody is told of it, and because of what. */
export function HeldBack({ alert }) {
  const silences = alert.silenced_by ?? [];
  const inhibitors = alert.inhibited_by ?? [];
  if (silences.length === 0 && inhibitors.length === 0) return null;
  const silence = book.value?.get(silences[0]);
  const title = silence && t("silence.by", { by: silence.created_by, time: format.dayAndClock(format.instant(silence.ends_at)), comment: silence.comment });
  return html`<span class="held-back" data-testid="held-back" data-silenced=${silences.length > 0} data-inhibited=${inhibitors.length > 0}>
    ${silences.length > 0 && html`<a class="badge silenced" href="#/alerts?silences=1" title=${title}><${Icon} name="silence" />${silence ? t("silence.silencedBy", { by: silence.created_by }) : t("silence.silenced")}</a>`}
    ${inhibitors.length > 0 && html`<a class="badge silenced" href=${link(["alerts", inhibitors[0]])} title=${t("silence.inhibitedTitle")}>${t("silence.inhibited")}</a>`}</span>`;
}

/** On an alert's own page: each silence with who, until when and why. */
export function HeldBackBanner({ silencedBy = [], inhibitedBy = [] }) {
  if (silencedBy.length === 0 && inhibitedBy.length === 0) return null;
  return html`<div class="banner info" data-testid="held-back-banner"><ul>
    ${silencedBy.map((id) => {
      const silence = book.value?.get(id);
      return html`<li key=${id} class="break">${silence ? t("silence.by", { by: silence.created_by, time: format.dayAndClock(format.instant(silence.ends_at)), comment: silence.comment }) : t("silence.silenced")}</li>`;
    })}
    ${inhibitedBy.map((id) => html`<li key=${id}>${t("silence.inhibitedTitle")} <a href=${link(["alerts", id])}>${t("alert.title")}</a></li>`)}
  </ul></div>`;
}

const quoted = (text) => `"${text.replace(/\\/g, "\\\\").replace(/"/g, '\\"').replace(/\n/g, "\\n")}"`;

/** What one may want to silence, the narrowest first: [name, matchers]. */
function choicesOf({ series, rule, labels, severity }) {
  const choices = [["this", `{alertname=${quoted(rule)}, series=${quoted(series)}}`], ["series", `{series=${quoted(series)}}`]];
  if (labels?.service) choices.push(["service", `{service=${quoted(labels.service)}}`]);
  choices.push(["rule", `{alertname=${quoted(rule)}}`], ["severity", `{severity=${quoted(severity)}}`]);
  return choices;
}

export function SilenceDialog() {
  const alert = asked.value;
  return alert && html`<${Dialog} key=${alert.id} alert=${alert} />`;
}

function Dialog({ alert }) {
  const choices = choicesOf(alert);
  const [matchers, setMatchers] = useState(choices[0][1]);
  const [duration, setDuration] = useState("2h");
  const submit = async ({ by, comment }) => {
    await post("/api/silences", { matchers, duration, created_by: by, comment });
    notify(t("silence.done"));
  };
  const chosen = choices.find(([, text]) => text === matchers)?.[0] ?? "";
  return html`<${PersonDialog} prefix="silence" title=${t("silence.title")} text=${t("silence.text")} action=${t("silence.button")} commentNeeded onSubmit=${submit} onClose=${() => { asked.value = null; }}>
    <label class="field"><span>${t("silence.what")}</span><select class="input" data-testid="silence-what" value=${chosen} onChange=${(event) => setMatchers(choices.find(([name]) => name === event.currentTarget.value)?.[1] ?? matchers)}>
      ${choices.map(([name]) => html`<option key=${name} value=${name}>${t(`silence.what.${name}`)}</option>`)}${chosen === "" && html`<option value="">${t("silence.what.own")}</option>`}</select></label>
    <label class="field"><span>${t("silence.matchers")}</span><input class="input mono" data-testid="silence-matchers" spellcheck="false" value=${matchers} onInput=${(event) => setMatchers(event.currentTarget.value)} /></label>
    <label class="field"><span>${t("maintenance.for")}</span><select class="input" data-testid="silence-duration" value=${duration} onChange=${(event) => setDuration(event.currentTarget.value)}>
      ${DURATIONS.map((each) => html`<option key=${each} value=${each}>${format.spanText(each)}</option>`)}</select></label>
  <//>`;
}

/** The list on the alerts page: those in force and waiting, and on demand those that are over. */
export function SilencesPanel({ running, opened }) {
  const [shown, setShown] = useState(false);
  const over = useResource(shown ? "/api/silences" : null, { query: { state: "expired", limit: EXPIRED_SHOWN }, every: 30000, on: ["event"], only: tellsOfSilence, settle: 150 });
  // A server without silences has no list of them.
  if (running.error?.status === 404 && !running.data) return null;
  const rows = [...(running.data?.silences ?? []), ...((shown && over.data?.silences) || [])];
  if (!opened && rows.length === 0 && !shown) {
    return html`<p class="small muted" data-testid="no-silences">${t("silence.none")} <button type="button" class="button small quiet" data-testid="silences-expired" onClick=${() => setShown(true)}>${t("silence.showExpired")}</button></p>`;
  }
  const expire = async (silence) => {
    const by = remembered("name");
    try {
      await send("DELETE", `/api/silences/${encodeURIComponent(silence.id)}${by ? `?by=${encodeURIComponent(by)}` : ""}`);
      notify(t("silence.expired"));
    } catch (error) {
      notify(`${t("silence.failed")} ${error.message}`, "error");
    }
    running.reload();
  };
  const columns = [
    { key: "matchers", className: "lead", render: (s) => html`<code class="break">${s.matchers}</code>` },
    { key: "state", className: "bare", render: (s) => html`<span class=${`badge silence-${s.state}`} data-testid="silence-state">${word("silence.state", s.state)}</span>` },
    { key: "by", render: (s) => html`<span class="break">${s.created_by}</span>` },
    { key: "reason", className: "wide", render: (s) => html`<span class="break">${s.comment}</span>` },
    { key: "from", className: "low mid", render: (s) => html`<${Moment} at=${s.starts_at} />` },
    { key: "until", render: (s) => html`<span><${Moment} at=${s.ends_at} />${s.expired_by && html` <span class="muted small">${t("ack.by", { by: s.expired_by })}</span>`}</span>` },
    { key: "end", className: "bare", render: (s) => s.state !== "expired" && html`<button type="button" class="button small" data-testid="silence-expire" data-silence-id=${s.id} aria-label=${t("silence.expireLabel", { matchers: s.matchers })} onClick=${() => expire(s)}>${t("silence.expire")}</button>` },
  ].map((column) => ({ ...column, label: t(`silence.col.${column.key}`) }));
  return html`<${Panel} title=${t("silence.list")} flush testid="silences" end=${html`<button type="button" class="button small" aria-pressed=${shown} data-testid="silences-expired" onClick=${() => setShown(!shown)}>${t("silence.showExpired")}</button>`}>
    <${Failure} resource=${running.error ? running : over} />
    ${rows.length === 0 && html`<${Nothing}>${t("silence.none")}<//>`}
    ${rows.length > 0 && html`<${Table} caption=${t("silence.list")} columns=${columns} rows=${rows} rowKey=${(s) => s.id} rowProps=${(s) => ({ "data-testid": "silence-row", "data-silence-id": s.id, "data-state": s.state })} />`}
  <//>`;
}
