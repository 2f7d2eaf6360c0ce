// Resilience policies of one caller or in front of one service: the breakers as a picture over time, the others as they stand.
import { html, useSignal } from "../dom.js";
import * as format from "../format.js";
import { known, t, tn, word } from "../i18n.js";
import { second } from "../live/clock.js";
import { policyKey } from "../live/services.js";
import { Axis, SpanButtons, spanNow } from "../pages/pipeline/timeline.js";
import { link } from "../router.js";
import { breakerKey, breakerStories } from "./breaker-story.js";
import { Mark } from "./icons.js";
import { said } from "./sentences.js";
import { Nothing } from "./states.js";
import { Table } from "./table.js";
import { Moment } from "./time.js";

/** As they are met by a call that follows the usual order. */
export const KINDS = ["circuit_breaker", "retry", "retry_budget", "bulkhead", "rate_limiter", "adaptive_limiter", "timeout", "fallback"];
const MARK = { closed: "normal", half_open: "warning", open: "critical", forced_open: "critical", full: "warning" };
/** Moves that are listed below the picture. */
const MOVES_SHOWN = 8;
/** So many breakers are drawn, those that are not closed first, and so many other policies are listed. */
const LANE_LIMIT = 48;
const ROW_LIMIT = 200;
const SETTINGS_SHOWN = 16;
const NUMBERS_SHOWN = 12;

/** What is used of how much there is, as each kind counts it: [used, of]. Whoever sends other names has its numbers in the list beside. */
const USE = {
  bulkhead: { used: ["active_calls", "in_use"], of: ["max_concurrent_calls", "size", "max_concurrent"] },
  adaptive_limiter: { used: ["active_calls", "in_use"], of: ["limit"] },
};

/** `stale`: whoever told it stopped, or is not heard of any more. */
export function PolicyState({ state, stale = false }) {
  if (!state) return html`<span class="muted">–</span>`;
  const level = stale ? "stale" : (MARK[state] ?? "stale");
  return html`<span class=${`sev sev-${level}`} data-testid="policy-state" data-state=${state} data-stale=${stale} title=${stale ? t("policy.stale.what") : undefined}><${Mark} level=${level} />${word("policy.state", state)}${stale && html` <span class="muted small">${t("policy.stale")}</span>`}</span>`;
}

/** `changes` newest first; `complete` when there are no older ones. */
export function Policies({ policies, changes, complete, caption }) {
  const breakers = policies.filter((each) => each.kind === "circuit_breaker");
  const others = policies.filter((each) => each.kind !== "circuit_breaker").sort((a, b) => KINDS.indexOf(a.kind) - KINDS.indexOf(b.kind) || a.caller.localeCompare(b.caller) || a.name.localeCompare(b.name));
  if (policies.length === 0 && changes.length === 0) return html`<${Nothing}>${t("resilience.none")}<//>`;
  return html`
    ${(breakers.length > 0 || changes.length > 0) && html`<${Breakers} breakers=${breakers} changes=${changes} complete=${complete} />`}
    ${others.length > 0 && html`<${Others} policies=${others} caption=${caption} />`}`;
}

function Breakers({ breakers, changes, complete }) {
  const span = useSignal(null);
  const now = second.value;
  const from = now - spanNow(span);
  const known = complete || changes.length === 0 ? -Infinity : Date.parse(changes.at(-1).at);
  const stories = breakerStories(changes, breakers, now);
  const standing = new Map(breakers.map((each) => [breakerKey(each), each]));
  const closed = (key) => (stories.get(key)?.at(-1)?.state ?? "closed") === "closed";
  const all = [...new Set([...standing.keys(), ...stories.keys()])].sort();
  // While all fit they keep their places; otherwise none that matters may be left out.
  if (all.length > LANE_LIMIT) all.sort((a, b) => closed(a) - closed(b));
  const keys = all.slice(0, LANE_LIMIT);
  const place = (ms) => `${(100 * (ms - from)) / (now - from)}%`;
  const callers = new Set(keys.map((key) => key.split("\n")[0]));
  const recent = changes.slice(0, MOVES_SHOWN);
  return html`<div class="breakers" data-testid="breaker-timeline">
    <div class="timeline-tools"><h3>${t("resilience.breakers")}</h3>
      ${["closed", "half_open", "open"].map((state) => html`<span key=${state} class="timeline-key small muted" aria-hidden="true"><span class=${`swatch breaker-${state}`}></span>${t(`policy.state.${state}`)}</span>`)}
      <${SpanButtons} span=${span} /></div>
    <div class="lane-row"><span></span><span></span><span class="lane-now now-head small muted" aria-hidden="true"><span>${t("sensors.col.state")}</span><span>${t("counter.failed")}</span><span>${t("counter.not_permitted_calls")}</span></span></div>
    <ul class="swim">${keys.map((key) => html`<${BreakerLane} key=${key} id=${key} policy=${standing.get(key)} segments=${stories.get(key) ?? []} from=${Math.max(from, known)} to=${now} place=${place} withCaller=${callers.size > 1} />`)}</ul>
    <${Axis} from=${from} to=${now} place=${place} />
    <${More} n=${all.length - keys.length} />
    ${recent.length > 0 && html`<details class="moves-list"><summary class="small">${t("resilience.moves")}</summary>
      <ol>${recent.map((each) => html`<li key=${`${breakerKey(each)} ${each.at}`} class="small" data-testid="breaker-change" data-to=${each.to}><span class="n"><${Moment} at=${each.at} /></span> <span class="strong">${each.name}</span>
        <span>${word("policy.state", each.from)} → ${word("policy.state", each.to)}</span> ${each.cause && html`<span class="muted">${said(each.cause)}</span>`}</li>`)}</ol></details>`}
  </div>`;
}

function BreakerLane({ id, policy, segments, from, to, place, withCaller }) {
  const [caller, name] = id.split("\n");
  const inside = segments.filter((segment) => segment.to > from);
  const state = inside.at(-1)?.state ?? policy?.state;
  const counters = policy?.counters ?? {};
  const rejected = counters.not_permitted_calls ?? counters.rejected;
  const label = withCaller ? `${caller} → ${name}` : name;
  const opened = inside.filter((segment) => segment.state === "open" && segment.from >= from).length;
  return html`<li class="lane-row" data-testid="breaker-lane" data-caller=${caller} data-name=${name} data-state=${state}>
    <span class="lane-label plain" title=${label}>${policy?.service ? html`<a href=${link(["services", policy.service])}>${label}</a>` : label}</span>
    <div class="track" role="img" aria-label=${`${label}: ${word("policy.state", state)}. ${tn("resilience.opened", opened, format.integer(opened))}`}>
      ${inside.map((segment) => {
        const [begin, end] = [Math.max(segment.from, from), Math.min(segment.to, to)];
        const title = `${word("policy.state", segment.state)} · ${segment.from > 0 ? format.clock(segment.from) : "…"} – ${segment.to >= to ? t("time.now") : format.clock(segment.to)}`;
        return html`<span key=${segment.from} class=${`segment breaker-${segment.state}`} style=${{ left: place(begin), right: `calc(100% - ${place(end)})` }} title=${title} data-testid="breaker-segment" data-state=${segment.state}><span>${word("policy.state", segment.state)}</span></span>`;
      })}
    </div>
    <span class="lane-now"><${PolicyState} state=${state} stale=${policy?.stale} /><span class="n">${format.compact(counters.failed ?? counters.failures)}</span><span class=${`n ${rejected ? "strong" : "muted"}`}>${format.compact(rejected)}</span></span></li>`;
}

function More({ n }) {
  return n > 0 ? html`<p class="small muted more" data-testid="more-policies">${tn("resilience.more", n, format.integer(n))}</p>` : null;
}

function Others({ policies, caption }) {
  const columns = [
    { key: "policy", className: "lead", render: (p) => html`<span class="break">${p.name}</span> <span class="muted small">${word("policy", p.kind)}</span>` },
    { key: "caller", render: (p) => html`<span class="id" title=${p.caller}>${p.caller}</span>` },
    { key: "service", render: (p) => (p.service ? html`<a class="id" href=${link(["services", p.service])}>${p.service}</a>` : html`<span class="muted">–</span>`) },
    { key: "use", render: (p) => html`<${Use} policy=${p} />` },
    { key: "numbers", className: "wide", render: (p) => html`<${Numbers} policy=${p} />` },
    { key: "settings", className: "wide low", render: (p) => html`<${Settings} settings=${p.settings} />` },
  ].filter(({ key }) => key !== "caller" || new Set(policies.map((each) => each.caller)).size > 1).map((column) => ({ ...column, label: t(`resilience.col.${column.key}`) }));
  return html`<${Table} caption=${caption} columns=${columns} rows=${policies.slice(0, ROW_LIMIT)} rowKey=${policyKey}
    rowProps=${(p) => ({ "data-testid": "policy-row", "data-caller": p.caller, "data-name": p.name, "data-kind": p.kind, "data-state": p.state ?? "" })} />
    <${More} n=${policies.length - ROW_LIMIT} />`;
}

const firstOf = (names, ...objects) => {
  for (const object of objects) for (const name of names) if (Number.isFinite(Number(object?.[name] ?? NaN))) return Number(object[name]);
  return null;
};

/** A bar and its numbers for what can be full; the state for the others. */
function Use({ policy }) {
  const names = USE[policy.kind];
  const [used, of] = names ? [firstOf(names.used, policy.counters), firstOf(names.of, policy.counters, policy.settings)] : [null, null];
  if (used === null || !of) return policy.state ? html`<${PolicyState} state=${policy.state} stale=${policy.stale} />` : html`<span class="muted">–</span>`;
  const full = used >= of;
  return html`<span class="use" data-testid="policy-use" data-used=${used} data-of=${of}><span class="use-bar" aria-hidden="true"><span class=${full ? "full" : ""} style=${{ width: `${Math.min(100, (100 * used) / of)}%` }}></span></span>
    <span class=${full ? "sev-warning strong" : ""}>${t("resilience.useOf", { used: format.integer(used), of: format.integer(of) })}</span></span>`;
}

/** In this order, then those that are not known here. */
const COUNTED = ["successful", "successful_without_retry", "successful_with_retry", "permitted", "in_time", "granted", "retries", "retries_left", "available_calls", "waiting_calls", "waited_calls", "late", "failed", "failed_without_retry", "failed_with_retry", "answered"];
const orderOf = (name) => COUNTED.indexOf(name) + 1 || COUNTED.length + 1;
/** Shown as what is in use. */
const HIDDEN = new Set(["active_calls", "max_concurrent_calls", "utilization", "limit", "in_use"]);

function Numbers({ policy }) {
  const shown = Object.entries(policy.counters).filter(([name, value]) => !(USE[policy.kind] && HIDDEN.has(name)) && value !== 0).sort(([a], [b]) => orderOf(a) - orderOf(b)).slice(0, NUMBERS_SHOWN);
  if (shown.length === 0) return html`<span class="muted">–</span>`;
  return html`<ul class="numbers">${shown.map(([name, value]) => html`<li key=${name} data-counter=${name} data-value=${value}><span class="muted">${known(`counter.${name}`) ? t(`counter.${name}`) : name}</span> <span class="strong">${Number.isInteger(value) ? format.compact(value) : format.plain(Math.round(value * 1000) / 1000)}</span></li>`)}</ul>`;
}

function Settings({ settings }) {
  const entries = Object.entries(settings ?? {}).slice(0, SETTINGS_SHOWN);
  if (entries.length === 0) return null;
  return html`<details><summary class="small muted">${t("rules.show")}</summary><dl class="facts small">${entries.map(([name, value]) => html`<dt key=${`t${name}`}><code>${name}</code></dt><dd key=${name}>${typeof value === "object" ? JSON.stringify(value) : String(value)}</dd>`)}</dl></details>`;
}
