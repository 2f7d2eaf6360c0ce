// The newest reading of the sensors that somebody on the page is looking at. Nothing is kept for the others, so memory
// follows what is shown and not how many sensors there are.
import { signal, useEffect, useMemo } from "../dom.js";
import { listen } from "./stream.js";

export const RECENT_LIMIT = 32;
const watched = new Map();

/** A signal of `{ value, at, recent }` that starts with what the API said and follows the stream. */
export function useLatest(sensor) {
  const entry = useMemo(() => claim(sensor), [sensor.sensor_id]);
  useEffect(() => {
    entry.users += 1;
    watched.set(sensor.sensor_id, entry);
    return () => {
      entry.users -= 1;
      if (entry.users === 0) watched.delete(sensor.sensor_id);
    };
  }, [entry]);
  useEffect(() => catchUp(entry, sensor), [sensor]);
  return entry.latest;
}

function claim(sensor) {
  return watched.get(sensor.sensor_id) ?? { users: 0, latest: signal(fromSensor(sensor)) };
}

function fromSensor(sensor) {
  return { value: sensor.last_value, at: Date.parse(sensor.last_timestamp), recent: sensor.recent ?? [] };
}

function catchUp(entry, sensor) {
  const told = fromSensor(sensor);
  if (!(told.at < entry.latest.peek().at)) entry.latest.value = told;
}

export function startLatest() {
  listen("reading", (messages) => {
    if (watched.size === 0) return;
    for (const message of messages) {
      for (const reading of message.readings) take(reading);
    }
  });
}

function take(reading) {
  const entry = watched.get(reading.sensor_id);
  if (!entry) return;
  const before = entry.latest.peek();
  const at = Date.parse(reading.timestamp);
  // A late reading doesn't replace a newer one; the same one again changes nothing.
  if (at <= before.at) return;
  entry.latest.value = { value: reading.value, at, recent: [...before.recent, reading.value].slice(-RECENT_LIMIT) };
}
