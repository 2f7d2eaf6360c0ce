// What the stream tells of services and of policies, taken into what the API answered.
import { useEffect, useRef } from "../dom.js";
import { listen } from "./stream.js";

/** Of these only the newest counts: it is shown from the message itself. */
const MEASURED = new Set(["metrica_coletada", "politica_medida"]);
const MOVED = /^(servico_(?!pulsou)|sistema_|verificacao_|disjuntor_|simulacao_aplicada)/;
/** The view may still be on its way to what the stream brought, so the API is asked twice. */
const AGAIN_MS = [150, 1000];

/** Asks again when a service, a check, a breaker or a simulation that `fits` moved. */
export function useMoves(resources, fits = () => true) {
  const current = useRef({});
  current.current = { resources, fits };
  useEffect(() => {
    const timers = new Map();
    const reload = (wait) => {
      if (!timers.has(wait)) timers.set(wait, setTimeout(() => { timers.delete(wait); current.current.resources.forEach((each) => each.reload()); }, wait));
    };
    const stop = listen("event", (events) => {
      if (events.some((event) => MOVED.test(event.type) && current.current.fits(event))) AGAIN_MS.forEach(reload);
    });
    return () => { stop(); timers.forEach(clearTimeout); };
  }, []);
}

/** Numbers that change more often than this can't be read, and a table of two hundred rows is drawn anew each time. */
const MEASURED_MS = 400;
/** So many different metrics and policies wait for their turn; the others come with the next answer of the API. */
const WAITING_LIMIT = 5000;

const seriesOf = ({ type, source, data }) => (type === "politica_medida" ? `${type} ${policyKey(data)}` : `${type} ${source} ${data.nome ?? data.name}`);

/** Calls `take` now and then with the newest events of each metric and measured policy. */
export function useMeasured(take) {
  const current = useRef(take);
  current.current = take;
  useEffect(() => {
    const waiting = new Map();
    let timer = 0;
    const hand = () => {
      timer = 0;
      const events = [...waiting.values()];
      waiting.clear();
      current.current(events);
    };
    const stop = listen("event", (events) => {
      for (const event of events) {
        if (!MEASURED.has(event.type) || !event.data) continue;
        const series = seriesOf(event);
        if (waiting.has(series) || waiting.size < WAITING_LIMIT) waiting.set(series, event);
      }
      if (waiting.size && !timer) timer = setTimeout(hand, MEASURED_MS);
    });
    return () => { stop(); clearTimeout(timer); };
  }, []);
}

/** The metrics that are fields of a service in the API. A metric may have any name, so that of no other field counts. */
const METRIC_FIELDS = new Set(["response_time_ms", "error_rate_percent", "requests_per_second", "cpu_percent", "memory_percent", "memory_bytes", "uptime_seconds"]);

/** `service` after these events: its newest values. The API knows them all; it has what was sent in parts for other metrics too. */
export function withMetrics(service, events) {
  let after = service;
  for (const { type, source, data, time } of events) {
    const name = data.nome ?? data.name;
    const value = data.valor ?? data.value;
    if (type !== "metrica_coletada" || source !== service.service || !METRIC_FIELDS.has(name) || typeof value !== "number") continue;
    after = { ...after, [name]: value, last_seen: time };
  }
  return after;
}

export const policyKey = ({ caller, name, kind }) => `${caller}\n${name}\n${kind}`;

/** `policies` after these events: known ones as they were measured last. */
export function withMeasured(policies, events) {
  const newest = new Map(events.filter((event) => event.type === "politica_medida").map((event) => [policyKey(event.data), event]));
  if (newest.size === 0) return policies;
  return policies.map((policy) => {
    const { data, time } = newest.get(policyKey(policy)) ?? {};
    if (!data) return policy;
    return { ...policy, state: data.state ?? policy.state, counters: data.counters ?? policy.counters, settings: data.settings ?? policy.settings, measured_at: time, stale: false };
  });
}
