// What stands where sensors would be, as long as there is none: how to send a reading from here.
import { html } from "../dom.js";
import { t } from "../i18n.js";
import { Copyable } from "./copy.js";

export function FirstReading() {
  const body = `{"sensor_id":"temp-1","sensor_type":"temperature","value":21.5,"unit":"°C"}`;
  const curl = `curl -X POST ${location.origin}/api/readings \\\n  -H 'Content-Type: application/json' \\\n  -d '${body}'`;
  return html`<section class="panel first-reading" aria-labelledby="first-title" data-testid="empty-state">
    <div class="panel-body">
      <h2 id="first-title">${t("first.title")}</h2>
      <p>${t("first.text")}</p>
      <h3>${t("first.curl")}</h3>
      <${Copyable} text=${curl} testid="curl" />
      <h3>${t("first.demo")}</h3>
      <${Copyable} text="farol run --demo" testid="demo-command" />
      <p class="muted">${t("first.waiting")} <a href="/docs">${t("nav.api")}</a></p>
    </div>
  </section>`;
}
