// Which consumer groups there are, and which of them is looked at.
import { html } from "../../dom.js";
import * as format from "../../format.js";
import { t, word } from "../../i18n.js";
import { link } from "../../router.js";
import { Panel } from "../../parts/states.js";
import { Table } from "../../parts/table.js";

/** The group of the workers, which everything else hangs on, or else one that lives. */
const PREFERRED = "sensor-processors";

export function chosenGroup(groups, asked) {
  const byName = (name) => groups.find((group) => group.group === name);
  return (asked ? byName(asked) : byName(PREFERRED) ?? groups.find((group) => group.members > 0) ?? groups[0]) ?? null;
}

export const stateWord = (state) => word("group", String(state).toLowerCase().replace(/[^a-z]/g, ""));
export const isStable = (state) => state === "Stable" || state === "Empty";

export function GroupState({ state }) {
  const kind = { Stable: "active", Empty: "left", Dead: "left" }[state] ?? "pending";
  return html`<span class=${`badge ${kind}`} data-testid="group-state" data-state=${state}>${stateWord(state)}</span>`;
}

export function Groups({ groups, chosen }) {
  const columns = [
    { key: "group", className: "lead", render: (g) => html`<a href=${link(["pipeline", g.group])} aria-current=${g.group === chosen ? "true" : undefined}><span class="id" title=${g.group}>${g.group}</span></a>` },
    { key: "state", className: "bare", render: (g) => html`<${GroupState} state=${g.state} />` },
    { key: "members", num: true, className: "low", render: (g) => format.integer(g.members) },
    { key: "partitionCount", num: true, className: "low", render: (g) => format.integer(g.partitions) },
    { key: "lag", num: true, render: (g) => format.integer(g.lag_records) },
    { key: "lagTime", num: true, render: (g) => format.duration(g.lag_ms) },
    { key: "generation", num: true, className: "low", render: (g) => format.integer(g.generation) },
  ].map((column) => ({ ...column, label: t(`pipeline.col.${column.key}`) }));
  return html`<${Panel} title=${t("pipeline.groups")} flush className="groups" testid="groups"><div class="scroll">
    <${Table} caption=${t("pipeline.groups")} columns=${columns} rows=${groups} rowKey=${(g) => g.group}
      rowProps=${(g) => ({ href: link(["pipeline", g.group]), "data-testid": "group-row", "data-group": g.group, "data-lag": g.lag_records, className: g.group === chosen ? "chosen" : "" })} /></div>
  <//>`;
}
