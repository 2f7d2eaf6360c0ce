// The members of one consumer group: a lane for each, a tile for each partition in the lane of its owner. When a partition
// changes hands its tile travels from lane to lane, and stays marked for a while.
import { html, useLayoutEffect, useRef, useSignal } from "../../dom.js";
import { post } from "../../api.js";
import * as format from "../../format.js";
import { t, word } from "../../i18n.js";
import { notify } from "../../live/notices.js";
import { ConfirmDialog } from "../../parts/confirm.js";
import { Icon } from "../../parts/icons.js";
import { colourOf } from "./owners.js";
import { byName, nameOf, owners } from "./story.js";

const TRAVEL_MS = 700;
const MARKED_MS = 5000;
const calm = matchMedia("(prefers-reduced-motion: reduce)");

/** A group after a rebalance, from its message. */
export function reassigned(group, rebalance) {
  if (group.group !== rebalance.group || group.generation > rebalance.generation) return group;
  const has = owners(rebalance.after);
  const known = new Map(group.members.map((member) => [member.consumer_id, member]));
  return {
    ...group, generation: rebalance.generation,
    members: Object.entries(rebalance.after).map(([consumer_id, partitions]) => ({ member_id: consumer_id, ...known.get(consumer_id), consumer_id, partitions })),
    partitions: group.partitions.map((each) => ({ ...each, owner: has.get(nameOf(each)) ?? null, owner_member_id: null })),
  };
}

/** Which group the workers of this process belong to: the one that reads what sensors send. */
function worksFor(group) {
  return group.partitions.some((each) => each.topic === "sensor-data");
}

export function Members({ group, workers, onWorkers }) {
  const asking = useSignal(null);
  const board = useRef(null);
  useTravel(board, group.partitions);
  const names = group.members.map((member) => member.consumer_id);
  // A worker of this process that stopped keeps its lane, empty, with the button that starts it again.
  const away = worksFor(group) ? workers.filter((worker) => !names.includes(worker.consumer_id)).map(({ consumer_id }) => ({ consumer_id, away: true })) : [];
  const lanes = [...group.members, ...away].sort((a, b) => byName(a.consumer_id, b.consumer_id) || byName(a.member_id ?? "", b.member_id ?? ""));
  lanes.forEach((lane) => colourOf(lane.consumer_id));
  // Members may have the same name; then the coordinator's id tells whose a partition is.
  const owns = (lane, each) => (each.owner_member_id && lane.member_id ? each.owner_member_id === lane.member_id : each.owner === lane.consumer_id);
  const orphans = group.partitions.filter((each) => !lanes.some((lane) => owns(lane, each)));
  const act = (worker, action) => async () => {
    try {
      await post(`/api/workers/${encodeURIComponent(worker)}/${action}`);
      notify(t(`worker.${action}.done`, { worker }));
    } catch (error) {
      notify(`${t(`worker.${action}.failed`, { worker })} ${error.message}`, "error");
    }
    onWorkers();
  };
  return html`<h3 class="members-head">${t("pipeline.members")}</h3>
    <div class="lanes" ref=${board} data-testid="lanes" data-group=${group.group}>
      ${orphans.length > 0 && html`<${Lane} key="" lane=${null} partitions=${orphans} />`}
      ${lanes.map((lane) => html`<${Lane} key=${lane.member_id ?? lane.consumer_id} lane=${lane} partitions=${group.partitions.filter((each) => owns(lane, each))}
        worker=${workers.find((worker) => worker.consumer_id === lane.consumer_id)} onStop=${() => { asking.value = lane.consumer_id; }} onStart=${act(lane.consumer_id, "start")} />`)}
      ${lanes.length === 0 && orphans.length === 0 && html`<p class="note">${t("pipeline.noMembers")}</p>`}
    </div>
    ${asking.value !== null && html`<${ConfirmDialog} title=${t("worker.stop.title", { worker: asking.value })} text=${t("worker.stop.text")} action=${t("worker.stop.button")} testid="stop-dialog"
      onConfirm=${act(asking.value, "stop")} onClose=${() => { asking.value = null; }} />`}`;
}

/** Brokers write addresses with a slash before them, after a name that is mostly empty. */
const hostOf = (host) => (host === "in-process" ? t("pipeline.inProcess") : host.replace(/^\//, ""));

function Lane({ lane, partitions, worker, onStop, onStart }) {
  const owner = lane?.consumer_id ?? null;
  const state = worker?.state;
  // The id begins with the name, which need not be read twice.
  const id = lane?.member_id && lane.member_id !== owner ? lane.member_id.replace(`${owner}-`, "") : null;
  return html`<div class=${`lane ${lane === null ? "orphan" : ""} ${lane?.away ? "away" : ""}`} data-testid="lane" data-owner=${owner ?? ""} data-state=${state ?? ""}
      style=${{ "--owner": owner === null ? "var(--stale)" : colourOf(owner) }}>
    <div class="lane-head">
      <span class="lane-name break">${owner ?? t("pipeline.nobody")}</span>
      ${state && html`<span class=${`badge ${state}`} data-testid="worker-state">${word("worker", state)}</span>`}
      ${state === "running" && html`<button type="button" class="button small" data-testid="worker-stop" data-worker=${owner} onClick=${onStop} aria-label=${t("worker.stop.label", { worker: owner })}><${Icon} name="stop" />${t("worker.stop.button")}</button>`}
      ${state === "stopped" && html`<button type="button" class="button small" data-testid="worker-start" data-worker=${owner} onClick=${onStart} aria-label=${t("worker.start.label", { worker: owner })}><${Icon} name="start" />${t("worker.start.button")}</button>`}
    </div>
    ${(lane?.host || id) && html`<p class="lane-id small muted">${lane.host && html`<span>${hostOf(lane.host)}</span>`}${id && html`<code title=${lane.member_id}>${id}</code>`}</p>`}
    <ul class="tiles" aria-label=${t("pipeline.partitionsOf", { owner: owner ?? t("pipeline.nobody") })}>
      ${partitions.map((each) => html`<li key=${nameOf(each)} class="tile" data-testid="partition-tile" data-partition=${nameOf(each)} data-owner=${owner ?? ""} data-lag=${each.lag_records}>
        <code class="tile-name">${nameOf(each)}</code>
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
