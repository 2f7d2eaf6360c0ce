// One consumer group: how it is, the picture of its partitions over time, and its members.
import { html } from "../../dom.js";
import * as format from "../../format.js";
import { t } from "../../i18n.js";
import { FactRow, Panel } from "../../parts/states.js";
import { Ago } from "../../parts/time.js";
import { causeText, gravest, Sign } from "./changes.js";
import { GroupState } from "./groups.js";
import { Members } from "./members.js";
import { Timeline } from "./timeline.js";

export function Group({ group, rebalances, complete, workers, onWorkers }) {
  const lag = group.partitions.reduce((sum, each) => sum + each.lag_records, 0);
  const ages = group.partitions.map((each) => each.lag_ms).filter((ms) => typeof ms === "number");
  const oldest = ages.length || group.partitions.length === 0 ? Math.max(0, ...ages) : null;
  const paused = group.partitions.filter((each) => each.owner === null).length;
  const last = rebalances[0];
  return html`<${Panel} title=${group.group} testid="assignment" id=${`group-${group.group}`}
      end=${html`<span class="muted small" data-testid="generation" data-generation=${group.generation}>${t("pipeline.generation", { n: group.generation ?? "–" })}</span><${GroupState} state=${group.state} />`}>
    <${FactRow} facts=${[
      [t("pipeline.members"), format.integer(group.members.length)],
      [t("pipeline.col.partitions"), html`${format.integer(group.partitions.length)}${paused > 0 && html` · <span class="sev-warning">${t("pipeline.without", { n: format.integer(paused) })}</span>`}`],
      [t("pipeline.col.lag"), html`<span data-testid="group-lag" data-value=${lag}>${format.integer(lag)}</span>`],
      [t("pipeline.col.lagTime"), html`<span class=${oldest > 5000 ? "sev-warning" : ""} data-testid="group-lag-ms" data-value=${oldest ?? ""}>${format.duration(oldest)}</span>`],
      [t("pipeline.last"), last && html`<span class="cause-line"><${Sign} sign=${gravest(last)} />${causeText(last)} <span class="muted"><${Ago} at=${last.completed_at} /></span></span>`],
    ]} />
    <${Timeline} group=${group} rebalances=${rebalances} complete=${complete} />
    <${Members} group=${group} workers=${workers} onWorkers=${onWorkers} />
  <//>`;
}
