// The frame around every page: navigation, connection, language, theme, notices, and what is said to screen readers.
import { html, useSignal, useEffect } from "../dom.js";
import * as format from "../format.js";
import { LANGUAGES, language, setLanguage, t } from "../i18n.js";
import { second } from "../live/clock.js";
import { dismiss, notices } from "../live/notices.js";
import { spoken } from "../live/speech.js";
import { StatusKeeper, firingTotal, status } from "../live/status.js";
import { connection, retryNow, server } from "../live/stream.js";
import { link, route } from "../router.js";
import { theme, toggleTheme } from "../theme.js";
import { Icon, Logo } from "./icons.js";

const PAGES = ["overview", "sensors", "services", "alerts", "resilience", "pipeline", "rules", "events"];

export function Shell({ children }) {
  return html`
    <button type="button" class="skip" onClick=${() => document.getElementById("main").focus()}>${t("nav.skip")}</button>
    <${StatusKeeper} />
    <div class="frame">
      <${Side} />
      <header class="top">
        <a class="brand" href="#/" aria-label="Farol"><${Logo} /><span>Farol</span></a>
        <${Connection} />
        <div class="top-tools">
          <label class="visually-hidden" for="language">${t("nav.language")}</label>
          <select id="language" class="input language" data-testid="language" value=${language.value} onChange=${(event) => setLanguage(event.currentTarget.value)}>
            ${LANGUAGES.map(([tag, name]) => html`<option key=${tag} value=${tag} lang=${tag}>${name}</option>`)}
          </select>
          <button type="button" class="button icon quiet" data-testid="theme" onClick=${toggleTheme}
            aria-label=${t(theme.value === "dark" ? "theme.toLight" : "theme.toDark")} title=${t(theme.value === "dark" ? "theme.toLight" : "theme.toDark")}>
            <${Icon} name=${theme.value === "dark" ? "light" : "dark"} /></button>
        </div>
      </header>
      <main id="main" class="main" tabindex="-1">${children}</main>
    </div>
    <${Notices} />
    <div class="visually-hidden" role="status" aria-live="polite" data-testid="live-region">${spoken}</div>`;
}

function Side() {
  const here = route.value.page || "overview";
  const firing = firingTotal(status.value.data);
  const version = server.value.version ?? status.value.data?.version;
  return html`<nav class="side" aria-label=${t("nav.label")}>
    <a class="brand" href="#/" aria-label="Farol"><${Logo} /><span>Farol</span></a>
    <div class="nav">
      ${PAGES.map((page) => html`<a key=${page} href=${link(page === "overview" ? [] : [page])} aria-current=${here === page ? "page" : undefined} data-testid=${`nav-${page}`}
          title=${t(`nav.${page}`)}>
        <${Icon} name=${page} /><span class="label">${t(`nav.${page}`)}</span>
        ${page === "alerts" && firing > 0 && html`<span class="count sev-critical" aria-label=${t("nav.firing", { n: firing })} data-testid="nav-firing">${format.compact(firing)}</span>`}
      </a>`)}
    </div>
    <div class="side-foot">
      <a href="/docs">${t("nav.api")}</a>
      ${version && html`<span>Farol ${version}</span>`}
    </div>
  </nav>`;
}

function Connection() {
  const { state, retryAt } = connection.value;
  const seconds = retryAt === null ? 0 : Math.max(0, Math.ceil((retryAt - Date.now()) / 1000));
  // Counting down needs the tick; while live nothing here ticks.
  if (retryAt !== null) void second.value;
  const text = state === "live" || state === "connecting" || retryAt === null ? t(`connection.${state}`) : t(`connection.${state}.in`, { n: seconds });
  return html`<div class="connection" data-testid="connection" data-state=${state}>
    <span class="lamp" aria-hidden="true"></span><span>${text}</span>
    ${state !== "live" && state !== "connecting" && html`<button type="button" class="button small quiet" onClick=${retryNow} data-testid="connection-retry">${t("connection.retry")}</button>`}
  </div>`;
}

function Notices() {
  return html`<div class="notices" role="region" aria-label=${t("notices.label")}>
    ${server.value.changed && html`<div class="notice" data-testid="version-notice"><span>${t("notices.version", { version: server.value.version })}</span>
      <button type="button" class="button small" onClick=${() => location.reload()}>${t("action.reload")}</button></div>`}
    ${notices.value.map((notice) => html`<div key=${notice.id} class=${`notice ${notice.kind}`} role="status" data-testid="notice"><span>${notice.text}</span>
      <button type="button" class="button icon quiet" aria-label=${t("action.dismiss")} onClick=${() => dismiss(notice.id)}><${Icon} name="close" /></button></div>`)}
  </div>`;
}

/** The heading of a page; it takes the focus when the page was reached from another one. */
export function PageHead({ title, children, before }) {
  return html`<div class="page-head">${before}<h1 tabindex="-1" id="page-title">${title}</h1>${children}</div>`;
}

/** A value that follows typing only after a pause. */
export function useDebounced(value, wait) {
  const settled = useSignal(value);
  useEffect(() => {
    const timer = setTimeout(() => { settled.value = value; }, wait);
    return () => clearTimeout(timer);
  }, [value, wait]);
  return settled.value;
}
