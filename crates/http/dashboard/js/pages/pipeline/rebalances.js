// The history of one group's rebalances, as the view keeps it over restarts: the causes, the generation, who had what
// before and after, how long nobody did, and what it cost in all.
import { html } from "../../dom.js";
import * as format from "../../format.js";
import { t, tn } from "../../i18n.js";
import { Icon } from "../../parts/icons.js";
import { Failure, ListFoot, Nothing, Panel } from "../../parts/states.js";
import { Moment } from "../../parts/time.js";
import { Causes } from "./changes.js";
import { colourOf } from "./owners.js";
import { moves } from "./story.js";

export const REBALANCES_LIMIT = 1000;
/** So many moves of one rebalance are written out. */
const MOVES_SHOWN = 24;

export const keyOf = (rebalance) => `${rebalance.group} ${rebalance.generation} ${rebalance.began_at}`;

export function newestFirst(rebalances) {
  const seen = new Map();
  for (const rebalance of rebalances) if (!seen.has(keyOf(rebalance))) seen.set(keyOf(rebalance), rebalance);
  return [...seen.values()].sort((a, b) => Date.parse(b.completed_at) - Date.parse(a.completed_at)).slice(0, REBALANCES_LIMIT);
}

export function Rebalances({ history, rebalances }) {
  const total = history.data?.total ?? 0;
  return html`<${Panel} title=${t("pipeline.rebalances")} flush className="long" testid="rebalances" end=${history.data && html`<span class="muted small" data-testid="rebalances-total">${format.integer(total)}</span>`}>
    <${Failure} resource=${history} />
    ${history.data && rebalances.length === 0 && html`<${Nothing}>${t("pipeline.noRebalances")}<//>`}
    <ol class="rebalances" tabindex="0" aria-label=${t("pipeline.rebalances")}>
      ${rebalances.map((rebalance) => html`<${Rebalance} key=${keyOf(rebalance)} rebalance=${rebalance} />`)}
    </ol>
    ${rebalances.length > 0 && html`<${ListFoot} more=${history.more} text=${t("page.shown", { shown: format.integer(rebalances.length), total: format.integer(Math.max(total, rebalances.length)) })} />`}
  <//>`;
}

function Rebalance({ rebalance }) {
  const { moved, kept } = moves(rebalance);
  const { cost } = rebalance;
  return html`<li class="rebalance" data-testid="rebalance-row" data-group=${rebalance.group} data-generation=${rebalance.generation} data-longest-pause=${cost.longest_pause_ms}>
    <div class="rebalance-when"><${Moment} at=${rebalance.completed_at} /><span class="muted small">${t("pipeline.generation", { n: rebalance.generation })}</span></div>
    <div class="rebalance-what">
      <${Causes} rebalance=${rebalance} />
      <ul class="moves">
        ${moved.slice(0, MOVES_SHOWN).map((move) => html`<${Move} key=${move.name} move=${move} />`)}
        ${moved.length > MOVES_SHOWN && html`<li class="muted small">${tn("timeline.more", moved.length - MOVES_SHOWN, format.integer(moved.length - MOVES_SHOWN))}</li>`}
        ${kept > 0 && html`<li class="muted small">${tn("pipeline.kept", kept, format.integer(kept))}</li>`}
      </ul>
    </div>
    <dl class="rebalance-cost"><dt>${t("rebalance.took")}</dt><dd>${format.duration(cost.took_ms)}</dd><dt>${t("rebalance.pause")}</dt><dd>${moved.length ? format.duration(cost.longest_pause_ms) : "–"}</dd></dl></li>`;
}

function Move({ move: { name, from, to, paused } }) {
  const nobody = t("pipeline.nobody");
  const owner = (who, className) => html`<span class=${`owner-name ${who ? className : "muted"}`} style=${{ "--owner": who ? colourOf(who) : "transparent" }}>${who ?? nobody}</span>`;
  return html`<li data-testid="move" data-partition=${name} data-paused=${paused ?? ""}><code>${name}</code>
    ${owner(from, "")}<${Icon} name="move" />${owner(to, "strong")}
    ${typeof paused === "number" && html`<span class="muted small">${t("pipeline.paused", { span: format.duration(paused) })}</span>`}</li>`;
}
