// The picture of one consumer group: a lane for each member, a tile for each partition in the lane of its owner.
// When a partition changes hands its tile travels from lane to lane, and stays marked for a while.
import { html, useLayoutEffect, useRef, useSignal } from "../../dom.js";
import { post } from "../../api.js";
import * as format from "../../format.js";
import { t, word } from "../../i18n.js";
import { notify } from "../../live/notices.js";
import { ConfirmDialog } from "../../parts/confirm.js";
import { Icon } from "../../parts/icons.js";
import { Panel } from "../../parts/states.js";

const COLOURS = 8;
const TRAVEL_MS = 700;
const MARKED_MS = 5000;
const calm = matchMedia("(prefers-reduced-motion: reduce)");

/** A colour belongs to an owner for as long as the page lives, so that it doesn't change when others come and go. */
const colours = new Map();
function colourOf(owner) {
  if (!colours.has(owner)) colours.set(owner, colours.size % COLOURS);
  return colours.get(owner);
}

const nameOf = ({ topic, partition }) => `${topic}/${partition}`;

/** The groups after a rebalance, from its message. */
export function reassigned(groups, rebalance) {
  return groups.map((group) => {
    if (group.group !== rebalance.group || group.generation > rebalance.generation) return group;
    const owners = new Map(Object.entries(rebalance.after).flatMap(([owner, names]) => names.map((name) => [name, owner])));
    return {
      ...group, generation: rebalance.generation,
      members: Object.entries(rebalance.after).map(([consumer_id, partitions]) => ({ consumer_id, partitions })),
      partitions: group.partitions.map((each) => ({ ...each, owner: owners.get(nameOf(each)) ?? null })),
    };
  });
}

export function Assignment({ group, workers, onWorkers }) {
  const asking = useSignal(null);
  const board = useRef(null);
  useTravel(board, group.partitions);
  const members = group.members.map((member) => member.consumer_id);
  // A worker that stopped keeps its lane, empty, with the button that starts it again.
  const away = workers.filter((worker) => !members.includes(worker.consumer_id) && worksFor(group)).map((worker) => worker.consumer_id);
  const lanes = [...new Set([...members, ...away])].sort(byName);
  lanes.forEach(colourOf);
  const orphans = group.partitions.filter((each) => each.owner === null || !lanes.includes(each.owner));
  const act = (worker, action) => async () => {
    try {
      await post(`/api/workers/${encodeURIComponent(worker)}/${action}`);
      notify(t(`worker.${action}.done`, { worker }));
    } catch (error) {
      notify(`${t(`worker.${action}.failed`, { worker })} ${error.message}`, "error");
    }
    onWorkers();
  };

  return html`<${Panel} title=${t("pipeline.owners", { group: group.group })} testid="assignment" id=${`owners-${group.group}`}
      end=${html`<span class="muted small" data-testid="generation" data-generation=${group.generation}>${t("pipeline.generation", { n: group.generation })} · ${word("group", String(group.state).toLowerCase().replace(/[^a-z]/g, ""))}</span>`}>
    <div class="lanes" ref=${board} data-testid="lanes" data-group=${group.group}>
      ${orphans.length > 0 && html`<${Lane} key="" owner=${null} partitions=${orphans} />`}
      ${lanes.map((owner) => html`<${Lane} key=${owner} owner=${owner} partitions=${group.partitions.filter((each) => each.owner === owner)} member=${members.includes(owner)}
        worker=${workers.find((worker) => worker.consumer_id === owner)} onStop=${() => { asking.value = owner; }} onStart=${act(owner, "start")} />`)}
    </div>
    ${asking.value !== null && html`<${ConfirmDialog} title=${t("worker.stop.title", { worker: asking.value })} text=${t("worker.stop.text")} action=${t("worker.stop.button")} testid="stop-dialog"
      onConfirm=${act(asking.value, "stop")} onClose=${() => { asking.value = null; }} />`}
  <//>`;
}

/** Which group the workers of this process belong to: the one that reads what sensors send. */
export function worksFor(group) {
  return group.partitions.some((each) => each.topic === "sensor-data");
}

function byName(a, b) {
  return a.localeCompare(b, undefined, { numeric: true });
}

function Lane({ owner, partitions, member, worker, onStop, onStart }) {
  const state = worker?.state;
  return html`<div class=${`lane ${owner === null ? "orphan" : ""} ${member || owner === null ? "" : "away"}`} data-testid="lane" data-owner=${owner ?? ""} data-state=${state ?? ""}
      style=${{ "--owner": owner === null ? "var(--stale)" : `var(--owner-${colourOf(owner)})` }}>
    <div class="lane-head">
      <span class="lane-name break">${owner ?? t("pipeline.nobody")}</span>
      ${state && html`<span class=${`badge ${state}`} data-testid="worker-state">${word("worker", state)}</span>`}
      ${state === "running" && html`<button type="button" class="button small" data-testid="worker-stop" data-worker=${owner} onClick=${onStop} aria-label=${t("worker.stop.label", { worker: owner })}><${Icon} name="stop" />${t("worker.stop.button")}</button>`}
      ${state === "stopped" && html`<button type="button" class="button small" data-testid="worker-start" data-worker=${owner} onClick=${onStart} aria-label=${t("worker.start.label", { worker: owner })}><${Icon} name="start" />${t("worker.start.button")}</button>`}
    </div>
    <ul class="tiles" aria-label=${t("pipeline.partitionsOf", { owner: owner ?? t("pipeline.nobody") })}>
      ${partitions.map((each) => html`<li key=${nameOf(each)} class="tile" data-testid="partition-tile" data-partition=${nameOf(each)} data-owner=${owner ?? ""} data-lag=${each.lag_records}>
        <code class="tile-name">${nameOf(each)}</code>
        <span class="tile-facts"><span title=${t("pipeline.committedOf")}>${format.integer(each.committed)} / ${format.integer(each.end)}</span></span>
        <span class=${`tile-lag ${each.lag_ms > 5000 ? "sev-warning" : ""}`}>${each.lag_records > 0 ? t("pipeline.behindFor", { n: format.integer(each.lag_records), span: format.duration(each.lag_ms) }) : t("pipeline.upToDate")}</span>
      </li>`)}
      ${partitions.length === 0 && html`<li class="muted small">${t("pipeline.ownsNothing")}</li>`}
    </ul>
  </div>`;
}

/** First, last, invert, play: a tile whose owner changed starts where it stood before and travels to where it is. */
function useTravel(board, partitions) {
  const before = useRef(new Map());
  useLayoutEffect(() => {
    const origin = board.current.getBoundingClientRect();
    const now = new Map();
    for (const tile of board.current.querySelectorAll(".tile")) {
      const box = tile.getBoundingClientRect();
      const here = { x: box.left - origin.left, y: box.top - origin.top, owner: tile.dataset.owner };
      now.set(tile.dataset.partition, here);
      const there = before.current.get(tile.dataset.partition);
      if (there && there.owner !== here.owner) travel(tile, there.x - here.x, there.y - here.y);
    }
    before.current = now;
  }, [partitions]);
}

function travel(tile, dx, dy) {
  const colour = getComputedStyle(tile).getPropertyValue("--owner") || "currentColor";
  if (!calm.matches) {
    tile.animate([{ transform: `translate(${dx}px, ${dy}px)`, zIndex: 5 }, { transform: "none", zIndex: 5 }], { duration: TRAVEL_MS, easing: "cubic-bezier(.3,0,.2,1)" });
  }
  tile.animate([{ boxShadow: `0 0 0 3px ${colour}` }, { boxShadow: `0 0 0 3px ${colour}`, offset: 0.7 }, { boxShadow: "0 0 0 0 transparent" }], { duration: MARKED_MS });
}
