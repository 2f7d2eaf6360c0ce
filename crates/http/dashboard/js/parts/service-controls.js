// What can be done to a service from its page: maintenance, and how a simulated one behaves.
import { html, useEffect, useId, useSignal, useState } from "../dom.js";
import { post, send } from "../api.js";
import * as format from "../format.js";
import { t } from "../i18n.js";
import { notify } from "../live/notices.js";
import { ConfirmDialog } from "./confirm.js";
import { Icon } from "./icons.js";
import { PersonDialog } from "./person.js";
import { Panel } from "./states.js";
import { Moment } from "./time.js";

const DURATIONS = ["", "30m", "1h", "2h", "8h"];
/** The longest latency that the slider offers; the API takes more. */
const SLIDER_MS = 5000;

/** What the watch can be told of. A service whose name is another one is known by its events only, and nobody ends its maintenance for it. */
const WATCHABLE = /^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$/;

const pathOf = ({ service }, what) => `/api/services/${encodeURIComponent(service)}/${what}`;

/** Begins maintenance with a `body`, or ends it without. */
async function maintain(service, body) {
  if (WATCHABLE.test(service.service)) return send(body ? "POST" : "DELETE", pathOf(service, "maintenance"), body);
  const type = body ? "servico_em_manutencao" : "servico_em_operacao";
  return post("/api/events", { specversion: "1.0", id: crypto.randomUUID?.() ?? `${Date.now()}-${Math.random()}`, type, source: service.service, data: body ?? {} });
}

export function MaintenanceControl({ service, onDone }) {
  const asking = useSignal(false);
  const on = service.state === "maintenance";
  const end = async () => {
    try {
      await maintain(service);
      notify(t("maintenance.ended", { service: service.service }));
    } catch (error) {
      notify(`${t("maintenance.failed")} ${error.message}`, "error");
    }
    onDone();
  };
  return html`<button type="button" class="button" aria-pressed=${on} data-testid="maintenance" onClick=${on ? end : () => { asking.value = true; }}>${t(on ? "maintenance.end" : "maintenance.begin")}</button>
    ${asking.value && html`<${MaintenanceDialog} service=${service} onClose=${() => { asking.value = false; onDone(); }} />`}`;
}

function MaintenanceDialog({ service, onClose }) {
  const durations = WATCHABLE.test(service.service) ? DURATIONS : [""];
  const [lasts, setLasts] = useState(durations.includes("1h") ? "1h" : "");
  return html`<${PersonDialog} title=${t("maintenance.title", { service: service.service })} text=${t("maintenance.text")} action=${t("maintenance.begin")} prefix="maintenance" onClose=${onClose}
    onSubmit=${async ({ by, comment }) => {
      await maintain(service, { by, ...(comment && { reason: comment }), ...(lasts && { for: lasts }) });
      notify(t("maintenance.begun", { service: service.service }));
    }}>
    <label class="field"><span>${t("maintenance.for")}</span><select class="input" data-testid="maintenance-for" value=${lasts} onChange=${(event) => setLasts(event.currentTarget.value)}>
      ${durations.map((each) => html`<option key=${each} value=${each}>${each ? format.spanText(each) : t("maintenance.untilEnded")}</option>`)}</select></label>
  <//>`;
}

/** Sliders send when they are let go; what is in force stands beside them, as the simulator told it last. */
export function SimulationPanel({ service }) {
  const { simulation } = service;
  const asking = useSignal(false);
  // What was asked for and is not in force yet, by field.
  const wanted = useSignal({});
  const ask = async (change) => {
    wanted.value = { ...wanted.peek(), ...change };
    try {
      await send("PATCH", pathOf(service, "simulation"), change);
    } catch (error) {
      wanted.value = {};
      notify(`${t("simulation.failed")} ${error.message}`, "error");
    }
  };
  useEffect(() => {
    const left = Object.entries(wanted.peek()).filter(([field, value]) => simulation[field] !== value);
    if (left.length !== Object.keys(wanted.peek()).length) wanted.value = Object.fromEntries(left);
  }, [simulation]);
  const percent = (rate) => `${format.plain(Math.round(rate * 1000) / 10)}\u00a0%`;
  const slider = (field, max, step, text) => html`<${Slider} key=${field} field=${field} inForce=${simulation[field] ?? 0} wanted=${wanted.value[field]} max=${Math.max(max, simulation[field] ?? 0)} step=${step} text=${text} onAsk=${ask} />`;
  // It may be down by its own schedule of outages, too: bringing it up ends either.
  const down = Boolean(simulation.down);
  return html`<${Panel} title=${t("simulation.title")} className="simulation" testid="simulation" end=${html`
      <span class="muted small" data-testid="simulation-state" data-down=${down} data-failure-rate=${simulation.failure_rate} data-latency=${simulation.latency_ms}>${t(Object.keys(wanted.value).length ? "simulation.applying" : down ? "simulation.isDown" : "simulation.isUp")}${simulation.until && html` · ${t("simulation.until")} <${Moment} at=${simulation.until} />`}</span>
      ${(down || service.state === "down") && html`<button type="button" class="button" data-testid="simulation-up" onClick=${() => ask({ down: false })}><${Icon} name="start" />${t("simulation.up")}</button>`}
      ${!down && html`<button type="button" class="button" data-testid="simulation-down" onClick=${() => { asking.value = true; }}><${Icon} name="stop" />${t("simulation.down")}</button>`}`}>
    <div class="sliders">${slider("failure_rate", 1, 0.05, percent)}${slider("latency_ms", SLIDER_MS, 50, format.duration)}${slider("latency_variation_ms", SLIDER_MS, 50, format.duration)}</div>
    ${asking.value && html`<${ConfirmDialog} title=${t("simulation.downTitle", { service: service.service })} text=${t("simulation.downText")} action=${t("simulation.down")} testid="simulation-dialog"
      onConfirm=${() => ask({ down: true })} onClose=${() => { asking.value = false; }} />`}
  <//>`;
}

function Slider({ field, inForce, wanted, max, step, text, onAsk }) {
  const id = useId();
  const held = useSignal(null);
  const shown = held.value ?? wanted ?? inForce;
  return html`<div class="slider"><label for=${id}>${t(`simulation.${field}`)}</label>
    <input id=${id} type="range" min="0" max=${max} step=${step} value=${shown} aria-valuetext=${text(shown)} data-testid=${`slider-${field}`} data-in-force=${inForce}
      onInput=${(event) => { held.value = Number(event.currentTarget.value); }}
      onChange=${(event) => { held.value = null; onAsk({ [field]: Number(event.currentTarget.value) }); }} />
    <output for=${id} class="strong">${text(shown)}</output>
    <span class="muted small">${t("simulation.inForce", { value: text(inForce) })}</span></div>`;
}
