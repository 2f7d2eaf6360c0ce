// The story of each partition, worked out of rebalances: who owned it from when to when, and when nobody did. Pure.

/** A pause below this is no gap that anybody could see; the list of rebalances has its milliseconds. */
const GAP_MS = 50;

/** How a name of a partition is written on the wire. */
export const nameOf = ({ topic, partition }) => `${topic}/${partition}`;

export const byName = (a, b) => a.localeCompare(b, undefined, { numeric: true });

/** Partition → owner, of `before` or `after`. */
export const owners = (assignment) => new Map(Object.entries(assignment ?? {}).flatMap(([owner, names]) => names.map((name) => [name, owner])));

/** { moved: [{ name, from, to, paused }], kept: n } of one rebalance. */
export function moves({ before, after, paused_ms: paused }) {
  const [had, has] = [owners(before), owners(after)];
  const names = [...new Set([...had.keys(), ...has.keys()])].sort(byName);
  // A pause tells of a move even between members that go by the same name.
  const changed = names.filter((name) => had.get(name) !== has.get(name) || paused?.[name] !== undefined);
  return {
    moved: changed.map((name) => ({ name, from: had.get(name) ?? null, to: has.get(name) ?? null, paused: paused?.[name] })),
    kept: names.length - changed.length,
  };
}

/**
 * The segments of every partition, by its name: [{ owner, from, to, paused? }], times in ms, `owner` null while it is
 * paused. `rebalances` come newest first, as the API gives them; `current` says who owns what now, and since when that is
 * known (`since(name, owner)`), which goes beyond the last rebalance while the next one is on its way.
 */
export function stories(rebalances, current, since, now) {
  const lanes = new Map();
  const lane = (name) => lanes.get(name) ?? lanes.set(name, { segments: [], open: null }).get(name);
  for (const rebalance of [...rebalances].reverse()) tell(rebalance, lane);
  for (const { name, owner } of current) {
    const each = lane(name);
    if ((each.open?.owner ?? null) === owner) continue;
    const from = Math.max(since(name, owner), each.open?.from ?? 0);
    close(each, from);
    each.open = { owner, from };
  }
  for (const each of lanes.values()) close(each, now);
  return new Map([...lanes].map(([name, { segments }]) => [name, segments]).sort(([a], [b]) => byName(a, b)));
}

function tell({ before, after, began_at, completed_at, paused_ms: paused }, lane) {
  const [had, has] = [owners(before), owners(after)];
  const [began, completed] = [Date.parse(began_at), Date.parse(completed_at)];
  for (const name of new Set([...had.keys(), ...has.keys()])) {
    const each = lane(name);
    const [from, to] = [had.get(name) ?? null, has.get(name) ?? null];
    // Of what was before the first rebalance that is known here, only the owner is known, not since when.
    if (each.open === null && from !== null) each.open = { owner: from, from: 0 };
    const pause = paused?.[name];
    // Somebody else, or nobody, has it than was told last: the log was down in between. How long it stood still, only a pause tells.
    const down = each.open !== null && each.open.owner !== from;
    if (down) close(each, pause === undefined ? began : completed - pause);
    if (from === to && pause === undefined) {
      each.open ??= { owner: to, from: began };
      continue;
    }
    const gap = pause ?? (to === null ? completed - began : 0);
    close(each, completed - gap);
    if (gap >= GAP_MS && (down || from !== null || to === null)) each.segments.push({ owner: null, from: completed - gap, to: completed, paused: gap });
    each.open = to === null ? null : { owner: to, from: completed };
  }
}

function close(each, at) {
  if (each.open !== null && at > each.open.from) each.segments.push({ ...each.open, to: at });
  each.open = null;
}
