// Resilience: every policy that a program tells of, by who calls; Farol's own outgoing calls first.
import { html } from "../dom.js";
import * as format from "../format.js";
import { t, tn } from "../i18n.js";
import { policyKey, useMeasured, useMoves, withMeasured } from "../live/services.js";
import { useResource } from "../live/resource.js";
import { KINDS, Policies } from "../parts/policies.js";
import { PageHead } from "../parts/shell.js";
import { Failure, Panel, Waiting } from "../parts/states.js";

/** The most that the API gives at once. */
const LIMIT = 1000;
const OWN = "farol";

export function ResiliencePage() {
  const policies = useResource("/api/resilience", { query: { limit: LIMIT }, every: 10000 });
  const changes = useResource("/api/resilience/changes", { query: { limit: LIMIT }, every: 30000 });
  useMoves([policies, changes]);
  useMeasured((events) => {
    const measured = events.filter((event) => event.type === "politica_medida");
    const known = new Set((policies.data?.policies ?? []).map(policyKey));
    if (measured.some(({ data }) => !known.has(policyKey(data)))) policies.reload();
    policies.mutate((data) => ({ ...data, policies: withMeasured(data.policies, measured) }));
  });
  const list = policies.data?.policies ?? [];
  const moves = changes.data?.changes ?? [];
  const callers = [...new Set([...list, ...moves].map((each) => each.caller))].sort((a, b) => (b === OWN) - (a === OWN) || a.localeCompare(b));
  const kinds = KINDS.filter((kind) => list.some((each) => each.kind === kind) || (kind === "circuit_breaker" && moves.length > 0));
  const open = list.filter((each) => !each.stale && (each.state === "open" || each.state === "half_open")).length;
  return html`<div class="page resilience">
    <${PageHead} title=${t("nav.resilience")}>${policies.data && html`<span class="muted" data-testid="breakers-open" data-count=${open}>${tn("resilience.open", open, format.integer(open))}</span>`}<//>
    <p class="muted lead-text">${t("resilience.text")}</p>
    <${Failure} resource=${policies} />
    ${!policies.data && !policies.error && html`<${Waiting} />`}
    ${policies.data && callers.length === 0 && html`<p class="banner info" data-testid="no-policies"><span>${t("resilience.noneYet")} <code>politica_medida</code></span></p>`}
    ${callers.map((caller) => html`<${Panel} key=${caller} title=${caller === OWN ? t("resilience.own") : t("resilience.callsOf", { caller })} flush testid=${`caller-${caller}`}>
      <${Policies} policies=${list.filter((each) => each.caller === caller)} changes=${moves.filter((each) => each.caller === caller)} complete=${!changes.data?.next_cursor} caption=${caller} /><//>`)}
    ${list.length > 0 && policies.data.total > list.length && html`<p class="muted">${t("page.shown", { shown: format.integer(list.length), total: format.integer(policies.data.total) })}</p>`}
    ${kinds.length > 0 && html`<${Panel} title=${t("resilience.what")} testid="policy-words"><dl class="words">${kinds.map((kind) => html`<div key=${kind}><dt>${t(`policy.${kind}`)}</dt><dd>${t(`policy.${kind}.what`)}</dd></div>`)}</dl><//>`}
  </div>`;
}
