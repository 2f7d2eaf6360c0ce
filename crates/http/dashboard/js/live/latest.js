// The newest reading of the sensors that somebody on the page is looking at. Nothing is kept for the others, so memory
// follows what is shown and not how many sensors there are.
import { signal, useEffect, useMemo } from "../dom.js";
import { serverNow } from "./clock.js";
import { listen } from "./stream.js";

export const RECENT_LIMIT = 32;
const watched = new Map();

/** A signal of `{ value, at, seen, recent }` (`at` event time, `seen` arrival, both ms) that starts with what the API said and follows the stream. */
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

/** One entry per sensor, whichever cells of the row ask first; it is given up when the last of them has gone. */
function claim(sensor) {
  let entry = watched.get(sensor.sensor_id);
  if (!entry) {
    entry = { users: 0, latest: signal(fromSensor(sensor)) };
    watched.set(sensor.sensor_id, entry);
  }
  return entry;
}

function fromSensor(sensor) {
  return { value: sensor.last_value, at: Date.parse(sensor.last_timestamp), seen: Date.parse(sensor.last_arrival), recent: sensor.recent ?? [] };
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
  const seen = serverNow();
  // A late reading doesn't replace a newer one; the same one again changes nothing but that the sensor was heard.
  if (at <= before.at) entry.latest.value = { ...before, seen };
  else entry.latest.value = { value: reading.value, at, seen, recent: [...before.recent, reading.value].slice(-RECENT_LIMIT) };
}
