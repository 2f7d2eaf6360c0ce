// What a page shows while it waits, when the API refused, and when there is nothing.
import { html } from "../dom.js";
import { t } from "../i18n.js";

/** A banner over old content, or instead of content that never came. */
export function Failure({ resource }) {
  if (!resource.error) return null;
  return html`<div class="banner error" role="alert" data-testid="api-error">
    <span><span class="strong">${t("error.load")}</span> ${resource.error.message}</span>
    <button type="button" class="button small" onClick=${resource.reload}>${t("action.retry")}</button></div>`;
}

export function Waiting() {
  return html`<p class="note" role="status">${t("state.loading")}</p>`;
}

export function Nothing({ children }) {
  return html`<p class="note">${children}</p>`;
}

/** The foot of a list that goes on (`more` of `usePages`); `text` says how much of it is shown. */
export function ListFoot({ text, more }) {
  return html`<div class="table-foot"><span>${text}</span><span class="end">
    ${more.error && html`<span class="sev-critical" role="alert">${more.error.message}</span>`}
    ${more.available && html`<button type="button" class="button" data-testid="load-more" disabled=${more.loading} onClick=${more.load}>${t("page.more")}</button>`}</span></div>`;
}

/** Facts side by side, each under its name: [[name, content], …]; those without content are left out. */
export function FactRow({ facts }) {
  return html`<dl class="headline-facts">${facts.filter(([, content]) => content).map(([name, content]) => html`<div><dt>${name}</dt><dd>${content}</dd></div>`)}</dl>`;
}

/** A panel with a title; `end` is what stands at the right of it. */
export function Panel({ title, end, children, flush, className = "", testid, id }) {
  const heading = id ?? `p-${String(testid ?? title).replace(/\W+/g, "-")}`;
  return html`<section class=${`panel ${className}`} aria-labelledby=${heading} data-testid=${testid}>
    <div class="panel-head"><h2 id=${heading}>${title}</h2>${end && html`<div class="end">${end}</div>`}</div>
    <div class=${`panel-body ${flush ? "flush" : ""}`}>${children}</div>
  </section>`;
}
