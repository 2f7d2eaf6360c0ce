// The one EventSource of the page, shared by all its parts.
//
// Messages are queued and handed to their listeners once per animation frame, so that 500 readings in a tick cost one
// update of the page. While the page is hidden there are no frames: then a timer empties the queues once a second.
// Queues are bounded; what doesn't fit is dropped and listeners of "refetch" are told to ask the API anew.
//
// Reconnecting is done here and not left to EventSource, because the countdown has to be shown and because a stream
// that failed with an HTTP error would not be tried again. The id of the last message goes along, so the server sends
// alerts, events and pipeline messages from there on, or a `gap` when it can't.
import { batch, signal } from "../dom.js";
import { setServerTime } from "./clock.js";

const KINDS = ["reading", "alert", "event", "pipeline"];
const QUEUE_LIMIT = 1000;
const RETRY_MS = [500, 1000, 2000, 4000, 8000, 15000];
/** So many failures in a row are called offline instead of reconnecting. */
const OFFLINE_AFTER = 4;
const FRAME_FALLBACK_MS = 1000;

/** `state`: connecting | live | reconnecting | offline; `retryAt`: browser time of the next attempt, or null. */
export const connection = signal({ state: "connecting", retryAt: null });
/** The server's version, and whether it changed under this page. */
export const server = signal({ version: null, changed: false });

const listeners = new Map([...KINDS, "refetch", "gap"].map((kind) => [kind, new Set()]));
const queues = new Map(KINDS.map((kind) => [kind, []]));
let overflowed = false;

/** The stream that delivers, and the one that is being opened to replace it. */
let active = null;
let opening = null;
let focus = null;
let lastEventId = "";
let failures = 0;
let retryTimer = 0;
let everLive = false;

/** Calls `listener` with an array of messages per frame; returns how to stop. Kinds: the four of the wire, `gap`, `refetch`. */
export function listen(kind, listener) {
  listeners.get(kind).add(listener);
  return () => listeners.get(kind).delete(listener);
}

export function startStream() {
  connect();
  addEventListener("online", retryNow);
  addEventListener("offline", () => {
    stop();
    connection.value = { state: "offline", retryAt: null };
  });
  // A page that leaves lets go of its connection at once; one that comes back from the cache starts anew.
  addEventListener("pagehide", stop);
  addEventListener("pageshow", (event) => { if (event.persisted) retryNow(); });
}

/** Asks for every reading of one sensor (or, with null, the newest of all). The old stream runs until the new one is open. */
export function focusOn(sensorId) {
  if (focus === sensorId) return;
  focus = sensorId;
  if (connection.peek().state === "live") connect();
}

export function retryNow() {
  clearTimeout(retryTimer);
  if (connection.peek().state !== "live") connect();
}

/** A request found the server gone although the stream looks alive: find out now rather than at the next message. */
export function suspect() {
  if (connection.peek().state === "live") fail();
}

function stop() {
  clearTimeout(retryTimer);
  active?.close();
  opening?.close();
  active = opening = null;
}

function connect() {
  clearTimeout(retryTimer);
  opening?.close();
  const query = new URLSearchParams();
  if (focus !== null) query.set("sensor_id", focus);
  if (lastEventId) query.set("last_event_id", lastEventId);
  const search = query.toString();
  const source = new EventSource(search ? `/api/stream?${search}` : "/api/stream");
  opening = source;

  source.addEventListener("open", () => {
    active?.close();
    active = source;
    opening = null;
    announceOpen();
  });
  source.addEventListener("error", () => {
    if (source === opening && lastEventId) forgetRefusedId();
    fail();
  });
  source.addEventListener("hello", (message) => hello(parse(message)));
  source.addEventListener("gap", (message) => gap(parse(message)));
  // A stream that resumes begins with the newest reading of each sensor, whenever it arrived: no measure of what flows.
  let initial = lastEventId !== "";
  for (const kind of KINDS) {
    source.addEventListener(kind, (message) => {
      if (message.lastEventId) lastEventId = message.lastEventId;
      const content = parse(message);
      if (kind === "reading" && content) {
        content.initial = initial;
        initial = false;
      }
      enqueue(kind, content);
    });
  }
}

/**
 * EventSource doesn't say why it failed. A server that lives and refuses the stream may not know the id any more (another
 * data folder, say): without it the next attempt succeeds, and what was missed is asked for anew.
 */
async function forgetRefusedId() {
  const alive = await fetch("/health", { cache: "no-store" }).then((answer) => answer.ok, () => false);
  if (alive && connection.peek().state !== "live") lastEventId = "";
}

function announceOpen() {
  const wasLive = connection.peek().state === "live";
  failures = 0;
  connection.value = { state: "live", retryAt: null };
  // Counts and newest values may have moved while the line was down.
  if (everLive && !wasLive) tell("refetch", [{ reason: "reconnected" }]);
  everLive = true;
}

function fail() {
  stop();
  const wait = RETRY_MS[Math.min(failures, RETRY_MS.length - 1)] * (0.8 + Math.random() * 0.4);
  failures += 1;
  const state = !navigator.onLine || failures > OFFLINE_AFTER ? "offline" : "reconnecting";
  connection.value = { state, retryAt: Date.now() + wait };
  retryTimer = setTimeout(connect, wait);
}

function hello(message) {
  if (!message) return;
  const time = Date.parse(message.server_time);
  if (Number.isFinite(time)) setServerTime(time);
  const before = server.peek();
  server.value = { version: message.version ?? null, changed: before.changed || (before.version !== null && before.version !== message.version) };
}

function gap(message) {
  // A stream that turns to one sensor says that its earlier readings have to be fetched: nothing was missed.
  if (message?.stream !== "reading" || message.missed > 0) tell("gap", [message ?? {}]);
  tell("refetch", [{ reason: "gap" }]);
}

function parse(message) {
  try {
    return JSON.parse(message.data);
  } catch {
    console.error("unreadable message on the stream", message.type);
    return null;
  }
}

let frame = 0;
let fallback = 0;

function enqueue(kind, message) {
  if (message === null) return;
  const queue = queues.get(kind);
  if (queue.length >= QUEUE_LIMIT) {
    const dropped = queue.shift();
    // A newer reading or metric replaces an older one anyway; all else has to be asked for again.
    if (kind !== "reading" && dropped.type !== "metrica_coletada") overflowed = true;
  }
  queue.push(message);
  if (!frame) {
    frame = requestAnimationFrame(flush);
    fallback = setTimeout(flush, FRAME_FALLBACK_MS);
  }
}

function flush() {
  cancelAnimationFrame(frame);
  clearTimeout(fallback);
  frame = 0;
  batch(() => {
    for (const kind of KINDS) {
      const messages = queues.get(kind);
      if (messages.length === 0) continue;
      queues.set(kind, []);
      tell(kind, messages);
    }
    if (overflowed) {
      overflowed = false;
      tell("refetch", [{ reason: "overflow" }]);
    }
  });
}

function tell(kind, messages) {
  for (const listener of listeners.get(kind)) {
    try {
      listener(messages);
    } catch (error) {
      // One part's mistake must not silence the others.
      console.error(error);
    }
  }
}
