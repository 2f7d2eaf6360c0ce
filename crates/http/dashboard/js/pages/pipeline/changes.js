// What set off a rebalance, in words and as a sign: who came, who went, and why.
import { html } from "../../dom.js";
import { known, t } from "../../i18n.js";

/** The sign of a change: joined | left | missed | changed. The last two of a departure look alike: something was wrong. */
function signOf({ change, reason }) {
  if (change === "joined") return "joined";
  if (change === "left") return reason === "left" ? "left" : "missed";
  return "changed";
}

const WORST = ["missed", "left", "joined", "changed"];

/** The sign of a whole rebalance: that of its gravest change. */
export function gravest(rebalance) {
  const signs = rebalance.changes.map(signOf);
  return WORST.find((sign) => signs.includes(sign)) ?? "changed";
}

export function changeText({ change, reason, consumer_id: consumer }) {
  const kind = reason ? `${change}.${reason}` : change;
  return known(`change.${kind}`) ? t(`change.${kind}`, { consumer }) : `${consumer ?? ""} ${change} ${reason ?? ""}`.trim();
}

/** What set it off, in one sentence. What was recorded before causes were told one by one is English. */
export function causeText(rebalance) {
  return (rebalance.changes.length ? rebalance.changes.map(changeText) : rebalance.causes).join(" · ");
}

const SIGNS = {
  joined: html`<circle cx="8" cy="8" r="7" fill="currentColor" /><path d="M8 4.5v7M4.5 8h7" stroke="var(--surface)" stroke-width="1.8" />`,
  left: html`<circle cx="8" cy="8" r="6.2" fill="var(--surface)" stroke="currentColor" stroke-width="1.6" /><path d="M5 8h6" stroke="currentColor" stroke-width="1.8" />`,
  missed: html`<path d="M5.1 1h5.8L15 5.1v5.8L10.9 15H5.1L1 10.9V5.1z" fill="currentColor" /><path d="M5.2 5.2l5.6 5.6M10.8 5.2l-5.6 5.6" stroke="var(--surface)" stroke-width="1.8" />`,
  changed: html`<path d="M8 .9L15.1 8 8 15.1.9 8z" fill="currentColor" /><path d="M5.5 6.7h5M5.5 9.3h5" stroke="var(--surface)" stroke-width="1.5" />`,
};

export function Sign({ sign }) {
  return html`<svg class=${`sign sign-${sign}`} viewBox="0 0 16 16" aria-hidden="true">${SIGNS[sign]}</svg>`;
}

/** The causes of a rebalance, each with its sign. */
export function Causes({ rebalance }) {
  if (rebalance.changes.length === 0) return html`<ul class="causes">${rebalance.causes.map((cause) => html`<li key=${cause} class="break" lang="en">${cause}</li>`)}</ul>`;
  return html`<ul class="causes">${rebalance.changes.map((change, at) => html`<li key=${at} data-testid="cause" data-change=${change.change} data-reason=${change.reason ?? ""}>
    <${Sign} sign=${signOf(change)} /><span class="break">${changeText(change)}</span></li>`)}</ul>`;
}
