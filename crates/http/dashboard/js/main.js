// Starts the page: language, theme, router, clock, stream; then draws the page that the address names.
import { effect, html, render, useEffect, useRef } from "./dom.js";
import { startLanguage, t, tn } from "./i18n.js";
import { integer } from "./format.js";
import { startClock } from "./live/clock.js";
import { startLatest } from "./live/latest.js";
import { notify } from "./live/notices.js";
import { startSpeech } from "./live/speech.js";
import { firingTotal, status } from "./live/status.js";
import { listen, startStream } from "./live/stream.js";
import { AcknowledgeDialog } from "./parts/acknowledge.js";
import { SilenceDialog } from "./parts/silences.js";
import { Shell, PageHead } from "./parts/shell.js";
import { route, startRouter } from "./router.js";
import { startTheme } from "./theme.js";
import { AlertPage } from "./pages/alert.js";
import { AlertsPage } from "./pages/alerts.js";
import { EventsPage } from "./pages/events.js";
import { OverviewPage } from "./pages/overview.js";
import { PipelinePage } from "./pages/pipeline.js";
import { ResiliencePage } from "./pages/resilience.js";
import { RulesPage } from "./pages/rules.js";
import { SensorPage } from "./pages/sensor.js";
import { SensorsPage } from "./pages/sensors.js";
import { ServicePage } from "./pages/service.js";
import { ServicesPage } from "./pages/services.js";

function pageOf({ page, id }) {
  switch (page) {
    case "": return { key: "overview", node: html`<${OverviewPage} />` };
    case "sensors": return id ? { key: `sensor ${id}`, node: html`<${SensorPage} id=${id} />` } : { key: "sensors", node: html`<${SensorsPage} />` };
    case "alerts": return id ? { key: `alert ${id}`, node: html`<${AlertPage} id=${id} />` } : { key: "alerts", node: html`<${AlertsPage} />` };
    case "services": return id ? { key: `service ${id}`, node: html`<${ServicePage} id=${id} />` } : { key: "services", node: html`<${ServicesPage} />` };
    case "resilience": return { key: "resilience", node: html`<${ResiliencePage} />` };
    case "pipeline": return { key: "pipeline", node: html`<${PipelinePage} id=${id} />` };
    case "rules": return { key: "rules", node: html`<${RulesPage} />` };
    case "events": return { key: "events", node: html`<${EventsPage} />` };
    default: return { key: "unknown", node: html`<${UnknownPage} />` };
  }
}

function UnknownPage() {
  return html`<div class="page"><${PageHead} title=${t("unknown.title")} /><p>${t("unknown.text")} <a href="#/">${t("nav.overview")}</a></p></div>`;
}

function App() {
  const { key, node } = pageOf(route.value);
  const shown = useRef(null);
  useEffect(() => {
    if (shown.current !== null && shown.current !== key) {
      scrollTo(0, 0);
      document.getElementById("page-title")?.focus({ preventScroll: true });
    }
    shown.current = key;
  }, [key]);
  return html`<${Shell}><div key=${key}>${node}</div><//><${AcknowledgeDialog} /><${SilenceDialog} />`;
}

/** `(3) Sensors · Farol`: the number of firing alerts is seen on a tab in the background. */
function startTitle() {
  effect(() => {
    const { page, id } = route.value;
    const firing = firingTotal(status.value.data);
    const name = (page === "sensors" || page === "services") && id ? id : t(pageTitle(page));
    document.title = `${firing ? `(${firing}) ` : ""}${name} · Farol`;
  });
}

function pageTitle(page) {
  if (page === "") return "nav.overview";
  return ["sensors", "services", "alerts", "resilience", "pipeline", "rules", "events"].includes(page) ? `nav.${page}` : "unknown.title";
}

/** `/` goes to the search field of the page, if it has one. */
function startShortcuts() {
  addEventListener("keydown", (event) => {
    if (event.key !== "/" || event.ctrlKey || event.metaKey || event.altKey || event.target.closest("input, textarea, select, dialog")) return;
    const field = document.querySelector("[data-slash]");
    if (!field) return;
    event.preventDefault();
    field.focus();
    field.select();
  });
}

function startGapNotices() {
  listen("gap", (messages) => {
    const missed = messages.reduce((sum, message) => sum + (message.missed ?? 0), 0);
    notify(missed > 0 ? tn("notices.gap", missed, integer(missed)) : t("notices.gapUnknown"));
  });
}

startTheme();
startLanguage();
startRouter();
startClock();
startLatest();
startSpeech();
startGapNotices();
startShortcuts();
startTitle();
const root = document.getElementById("app");
root.className = "";
root.replaceChildren();
render(html`<${App} />`, root);
startStream();
