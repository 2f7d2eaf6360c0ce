// What is said to screen readers: new alerts and changes of the connection, no more than one sentence every two seconds.
import { effect, signal } from "../dom.js";
import { t, tn, word } from "../i18n.js";
import { connection, listen } from "./stream.js";
import { summaryOf } from "../parts/sentences.js";

const PAUSE_MS = 2000;
export const spoken = signal("");

let waiting = [];
let timer = 0;

export function say(text) {
  spoken.value = text;
}

export function startSpeech() {
  listen("alert", (messages) => {
    waiting.push(...messages.filter((message) => message.kind === "fired").map((message) => message.alert));
    if (waiting.length && !timer) timer = setTimeout(sayAlerts, PAUSE_MS);
  });
  let before = "connecting";
  effect(() => {
    const { state } = connection.value;
    // The first connection is no news.
    if (state !== before && !(before === "connecting" && state === "live")) say(t(`connection.say.${state}`));
    before = state;
  });
}

function sayAlerts() {
  timer = 0;
  const alerts = waiting;
  waiting = [];
  if (alerts.length === 1) {
    const [alert] = alerts;
    say(t("alerts.say.one", { severity: word("severity", alert.severity), series: alert.series, summary: summaryOf(alert) }));
  } else if (alerts.length > 1) {
    say(tn("alerts.say", alerts.length));
  }
}
