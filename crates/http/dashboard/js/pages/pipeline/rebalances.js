// How partitions moved: the cause, the generation, who had what before and after, and how long nobody did.
import { html } from "../../dom.js";
import * as format from "../../format.js";
import { t, tn } from "../../i18n.js";
import { Icon } from "../../parts/icons.js";
import { Nothing, Panel } from "../../parts/states.js";
import { Moment } from "../../parts/time.js";

/** { moved: [{ name, from, to, paused }], kept: n } of one rebalance. */
export function moves({ before, after, paused_ms: paused }) {
  const owners = (assignment) => new Map(Object.entries(assignment ?? {}).flatMap(([owner, names]) => names.map((name) => [name, owner])));
  const [had, has] = [owners(before), owners(after)];
  const names = [...new Set([...had.keys(), ...has.keys()])].sort((a, b) => a.localeCompare(b, undefined, { numeric: true }));
  const changed = names.filter((name) => had.get(name) !== has.get(name));
  return {
    moved: changed.map((name) => ({ name, from: had.get(name) ?? null, to: has.get(name) ?? null, paused: paused?.[name] })),
    kept: names.length - changed.length,
  };
}

export function Rebalances({ rebalances }) {
  return html`<${Panel} title=${t("pipeline.rebalances")} flush className="long" testid="rebalances">
    ${rebalances.length === 0 && html`<${Nothing}>${t("pipeline.noRebalances")}<//>`}
    <ol class="rebalances" tabindex="0" aria-label=${t("pipeline.rebalances")}>
      ${rebalances.map((rebalance) => html`<${Rebalance} key=${`${rebalance.group} ${rebalance.generation} ${rebalance.began_at}`} rebalance=${rebalance} />`)}
    </ol>
  <//>`;
}

function Rebalance({ rebalance }) {
  const { moved, kept } = moves(rebalance);
  const took = format.instant(rebalance.completed_at) - format.instant(rebalance.began_at);
  const nobody = t("pipeline.nobody");
  return html`<li class="rebalance" data-testid="rebalance-row" data-group=${rebalance.group} data-generation=${rebalance.generation}>
    <div class="rebalance-when"><${Moment} at=${rebalance.completed_at} /><span class="muted small">${rebalance.group} · ${t("pipeline.generation", { n: rebalance.generation })}</span>
      <span class="muted small">${t("pipeline.took", { span: format.duration(took) })}</span></div>
    <div>
      <ul>${rebalance.causes.map((cause) => html`<li key=${cause} class="break" lang="en">${cause}</li>`)}</ul>
      <ul class="moves">
        ${moved.map(({ name, from, to, paused }) => html`<li key=${name} data-testid="move" data-partition=${name}><code>${name}</code>
          <span class=${from ? "" : "muted"}>${from ?? nobody}</span><${Icon} name="move" /><span class=${to ? "strong" : "muted"}>${to ?? nobody}</span>
          ${typeof paused === "number" && html`<span class="muted small">${t("pipeline.paused", { span: format.duration(paused) })}</span>`}</li>`)}
        ${kept > 0 && html`<li class="muted small">${tn("pipeline.kept", kept, format.integer(kept))}</li>`}
      </ul>
    </div></li>`;
}
