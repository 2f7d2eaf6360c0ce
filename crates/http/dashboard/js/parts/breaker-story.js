// The story of each circuit breaker, worked out of its moves: in which state it was from when to when. Pure.

export const breakerKey = ({ caller, name }) => `${caller}\n${name}`;

/**
 * Breaker → [{ state, from, to }], times in ms. `changes` come newest first, as the API gives them. `policies` say how the breakers stand now,
 * which goes beyond the last move if a program was started anew. Of the time before its first move a breaker's state is known, not its
 * beginning: that is 0.
 */
export function breakerStories(changes, policies, now) {
  const lanes = new Map();
  for (const { from, to, at, ...change } of [...changes].reverse()) {
    const lane = laneOf(lanes, change, { state: from, from: 0 });
    turn(lane, to, Date.parse(at));
  }
  for (const policy of policies.filter((each) => each.kind === "circuit_breaker" && each.state)) {
    const lane = laneOf(lanes, policy, { state: policy.state, from: 0 });
    if (lane.open.state !== policy.state) turn(lane, policy.state, Date.parse(policy.since ?? policy.measured_at) || now);
  }
  return new Map([...lanes].map(([key, { segments, open }]) => [key, [...segments, { ...open, to: now }].filter((segment) => segment.to > segment.from)]));
}

function laneOf(lanes, of, open) {
  const key = breakerKey(of);
  return lanes.get(key) ?? lanes.set(key, { segments: [], open }).get(key);
}

function turn(lane, state, at) {
  const from = Math.max(at, lane.open.from);
  lane.segments.push({ ...lane.open, to: from });
  lane.open = { state, from };
}
