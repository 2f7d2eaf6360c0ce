// The live picture of one group: a lane for each partition, time from left to right, a segment for each owner, gaps where
// a partition stood still, and a sign for each rebalance where somebody came or went. Right of each lane: how it is now.
import { html, useRef, useSignal } from "../../dom.js";
import * as format from "../../format.js";
import { t, tn } from "../../i18n.js";
import { second } from "../../live/clock.js";
import { remember, remembered } from "../../prefs.js";
import { causeText, gravest, Sign } from "./changes.js";
import { colourOf } from "./owners.js";
import { keyOf } from "./rebalances.js";
import { byName, moves, nameOf, stories } from "./story.js";

const MINUTE = 60000;
const SPANS = { "2m": 2 * MINUTE, "15m": 15 * MINUTE, "1h": 60 * MINUTE, "24h": 1440 * MINUTE };
const STEPS = [15e3, 30e3, MINUTE, 2 * MINUTE, 5 * MINUTE, 15 * MINUTE, 30 * MINUTE, 60 * MINUTE, 180 * MINUTE, 360 * MINUTE];
const TICKS = 8;
/** The end of the axis belongs to the word for now. */
const NOW_SHARE = 0.15;
/** So many lanes are drawn; a group with more partitions has them in its list of members. */
const LANE_LIMIT = 64;
/** More lanes than this are drawn thinner. */
const ROOMY = 12;

/** When the page first saw that a partition has this owner: what is drawn until the rebalance that tells it exactly. */
const noticed = new Map();
function noticedAt(group, name, owner, now) {
  const key = `${group} ${name}`;
  if (noticed.get(key)?.owner !== owner) noticed.set(key, { owner, at: now });
  return noticed.get(key).at;
}

/** How far back a picture goes, in ms: the last choice of anybody at this browser, kept by `span`. */
export function spanNow(span) {
  if (span.value === null) span.value = SPANS[remembered("timeline")] ? remembered("timeline") : "15m";
  return SPANS[span.value];
}

export function SpanButtons({ span }) {
  const choose = (each) => {
    span.value = each;
    remember("timeline", each);
  };
  return html`<div class="segments" role="group" aria-label=${t("chart.range")}>${Object.keys(SPANS).map((each) => html`<button key=${each} type="button" class="button small" aria-pressed=${each === span.value}
    data-testid="timeline-span" data-span=${each} onClick=${() => choose(each)}>${t(`timeline.span.${each}`)}</button>`)}</div>`;
}

export function Timeline({ group, rebalances, complete }) {
  const span = useSignal(null);
  const chosen = useSignal(null);
  const now = second.value;
  const from = now - spanNow(span);
  const current = group.partitions.map((each) => ({ name: nameOf(each), owner: each.owner ?? null }));
  const lanes = stories(rebalances, current, (name, owner) => noticedAt(group.group, name, owner, now), now);
  const progress = new Map(group.partitions.map((each) => [nameOf(each), each]));
  // Partitions that nobody has had in this span, and that are no longer the group's, are history.
  const shown = [...lanes.keys()].filter((name) => progress.has(name) || lanes.get(name).some((segment) => segment.to > from)).sort(byName);
  // Before the oldest rebalance that was fetched, if there are older ones, the picture knows nothing.
  const known = complete || rebalances.length === 0 ? -Infinity : Date.parse(rebalances.at(-1).completed_at);
  const place = (ms) => `${(100 * (ms - from)) / (now - from)}%`;
  const signs = rebalances.filter((each) => Date.parse(each.began_at) >= from).reverse();
  return html`<div class="timeline-panel" data-testid="timeline" data-span=${span.value}>
    <div class="timeline-tools">
      <h3>${t("timeline.title")}</h3>
      <span class="timeline-key small muted" aria-hidden="true"><span class="swatch gap"></span>${t("timeline.paused")}</span>
      ${["joined", "left", "missed"].map((sign) => html`<span key=${sign} class="timeline-key small muted" aria-hidden="true"><${Sign} sign=${sign} />${t(`timeline.key.${sign}`)}</span>`)}
      <${SpanButtons} span=${span} />
    </div>
    <${Signs} signs=${signs} place=${place} chosen=${chosen} />
    <ul class=${shown.length > ROOMY ? "swim dense" : "swim"}>
      ${shown.slice(0, LANE_LIMIT).map((name) => html`<${Lane} key=${name} name=${name} segments=${lanes.get(name)} now=${progress.get(name)} from=${Math.max(from, known)} to=${now} place=${place} signs=${signs} chosen=${chosen.value} />`)}
    </ul>
    <${Axis} from=${from} to=${now} place=${place} />
    ${shown.length > LANE_LIMIT && html`<p class="small muted">${tn("timeline.more", shown.length - LANE_LIMIT, format.integer(shown.length - LANE_LIMIT))}</p>`}
    <${Readout} rebalance=${signs.find((each) => keyOf(each) === chosen.value) ?? rebalances[0]} />
  </div>`;
}

/** The signs above the lanes; arrow keys walk from one to the next, and the line below tells what each was. */
function Signs({ signs, place, chosen }) {
  const row = useRef(null);
  const walk = (event) => {
    const step = { ArrowLeft: -1, ArrowRight: 1, Home: -Infinity, End: Infinity }[event.key];
    const all = [...row.current.querySelectorAll("button")];
    if (!step || all.length === 0) return;
    event.preventDefault();
    const at = all.indexOf(document.activeElement);
    all[Math.min(all.length - 1, Math.max(0, at + step))].focus();
  };
  return html`<div class="lane-row signs"><span class="lane-label"></span>
    <div class="track" ref=${row} role="group" aria-label=${t("timeline.signs")} onKeyDown=${walk}>
      ${signs.map((each, at) => html`<button key=${keyOf(each)} type="button" class="sign-button" style=${{ left: place(Date.parse(each.began_at)) }} tabindex=${at === signs.length - 1 ? 0 : -1}
        data-testid="sign" data-generation=${each.generation} aria-pressed=${keyOf(each) === chosen.value} aria-label=${tellOf(each)}
        onFocus=${() => { chosen.value = keyOf(each); }} onPointerEnter=${() => { chosen.value = keyOf(each); }}><${Sign} sign=${gravest(each)} /></button>`)}
    </div>
    <span class="lane-now now-head small muted" aria-hidden="true"><span>${t("timeline.owner")}</span><span>${t("timeline.committed")}<span class="end-offset"> / ${t("timeline.end")}</span></span><span>${t("timeline.lag")}</span></span></div>`;
}

function Lane({ name, segments, now, from, to, place, signs, chosen }) {
  const inside = segments.filter((segment) => segment.to > from);
  const late = now?.lag_ms > 5000;
  const owner = now?.owner ?? null;
  return html`<li class="lane-row" data-testid="timeline-lane" data-partition=${name} data-owner=${owner ?? ""} data-lag=${now?.lag_records ?? ""} data-lag-ms=${now?.lag_ms ?? ""}>
    <code class="lane-label" title=${name}>${name}</code>
    <div class="track" aria-hidden="true">
      ${signs.map((each) => html`<span key=${keyOf(each)} class=${`rule ${keyOf(each) === chosen ? "chosen" : ""}`} style=${{ left: place(Date.parse(each.began_at)) }}></span>`)}
      ${inside.map((segment) => html`<${Segment} key=${`${segment.owner} ${segment.from}`} segment=${segment} from=${from} to=${to} place=${place} />`)}
    </div>
    <span class="lane-now">
      <span class=${owner ? "lane-owner" : "lane-owner muted"} style=${{ "--owner": owner ? colourOf(owner) : "transparent" }}>${owner ?? t(now ? "pipeline.nobody" : "timeline.gone")}</span>
      <span class="n muted" title=${t("pipeline.committedOf")}>${format.integer(now?.committed)}<span class="end-offset"> / ${format.integer(now?.end)}</span></span>
      <span class=${`n ${late ? "sev-warning" : ""}`}>${!now ? "" : now.lag_records > 0 ? `${format.integer(now.lag_records)} · ${format.duration(now.lag_ms)}` : t("pipeline.upToDate")}</span>
    </span></li>`;
}

function Segment({ segment, from, to, place }) {
  const begin = Math.max(segment.from, from);
  const end = Math.min(segment.to, to);
  const style = { left: place(begin), right: `calc(100% - ${place(end)})` };
  if (segment.owner === null) {
    const title = `${t("timeline.paused")} ${format.duration(segment.paused ?? segment.to - segment.from)} · ${format.clockMillis(segment.from)}`;
    return html`<span class="segment gap" style=${style} title=${title} data-testid="segment-gap" data-paused=${segment.paused ?? ""}></span>`;
  }
  const title = `${segment.owner} · ${segment.from > 0 ? format.clock(segment.from) : "…"} – ${segment.to >= to ? t("time.now") : format.clock(segment.to)}`;
  return html`<span class="segment" style=${{ ...style, "--owner": colourOf(segment.owner) }} title=${title} data-testid="segment" data-owner=${segment.owner}><span>${segment.owner}</span></span>`;
}

export function Axis({ from, to, place }) {
  const step = STEPS.find((each) => (to - from) / each <= TICKS) ?? STEPS.at(-1);
  const zone = new Date(to).getTimezoneOffset() * MINUTE;
  const ticks = [];
  for (let at = Math.ceil((from - zone) / step) * step + zone; at < to - (to - from) * NOW_SHARE; at += step) ticks.push(at);
  const write = step < MINUTE ? format.clock : format.clockMinutes;
  return html`<div class="lane-row axis" aria-hidden="true"><span class="lane-label"></span>
    <div class="track">${ticks.map((at) => html`<span key=${at} class="tick" style=${{ left: place(at) }}>${write(at)}</span>`)}<span class="tick now">${t("time.now")}</span></div><span class="lane-now"></span></div>`;
}

/** What the chosen rebalance was, or the newest one. */
function Readout({ rebalance }) {
  if (!rebalance) return html`<p class="timeline-readout muted">${t("pipeline.noRebalances")}</p>`;
  return html`<p class="timeline-readout" data-testid="timeline-readout" data-generation=${rebalance.generation}><${Sign} sign=${gravest(rebalance)} />
    <span class="n">${format.clockMillis(Date.parse(rebalance.began_at))}</span><span class="strong">${causeText(rebalance)}</span><span class="muted">${costText(rebalance)}</span></p>`;
}

export function costText({ cost, ...rebalance }) {
  const { moved } = moves(rebalance);
  const parts = [tn("rebalance.moved", moved.length, format.integer(moved.length)), t("pipeline.took", { span: format.duration(cost.took_ms) })];
  if (cost.longest_pause_ms > 0) parts.push(t("rebalance.longest", { span: format.duration(cost.longest_pause_ms) }));
  return parts.join(" · ");
}

const tellOf = (rebalance) => `${format.clock(Date.parse(rebalance.began_at))}: ${causeText(rebalance)}. ${costText(rebalance)}`;
