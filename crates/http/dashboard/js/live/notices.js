// Short notices in the corner. At most three, each for twelve seconds or until dismissed.
import { signal } from "../dom.js";

const LIMIT = 3;
const STAY_MS = 12000;
let next = 1;

export const notices = signal([]);

export function notify(text, kind = "info") {
  const id = next;
  next += 1;
  // The same words again replace the old notice instead of piling up.
  notices.value = [...notices.peek().filter((notice) => notice.text !== text), { id, text, kind }].slice(-LIMIT);
  setTimeout(() => dismiss(id), STAY_MS);
}

export function dismiss(id) {
  notices.value = notices.peek().filter((notice) => notice.id !== id);
}
