// One clock for the whole page: the server's time, ticking once a second while the page is visible.
import { signal } from "../dom.js";

let skewMs = 0;

/** The server's time, as far as the last `hello` told it. Milliseconds. */
export const serverNow = () => Date.now() + skewMs;

/** Ticks each second; reading `.value` in a component follows it. */
export const second = signal(serverNow());

export function setServerTime(ms) {
  // Below two seconds it is the network's delay rather than a wrong clock.
  const skew = ms - Date.now();
  skewMs = Math.abs(skew) > 2000 ? skew : 0;
  second.value = serverNow();
}

export function startClock() {
  setInterval(() => {
    if (!document.hidden) second.value = serverNow();
  }, 1000);
  document.addEventListener("visibilitychange", () => {
    if (!document.hidden) second.value = serverNow();
  });
}
