// The HTTP API. Errors arrive as problem details (RFC 9457) and leave as ApiError with their words.
import { t } from "./i18n.js";

const TIMEOUT_MS = 20000;

export class ApiError extends Error {
  constructor(message, status, problem) {
    super(message);
    this.name = "ApiError";
    /** HTTP status; 0 when the server could not be reached. */
    this.status = status;
    this.problem = problem;
  }
}

/** The body of the answer. */
export async function get(path, query, signal) {
  return (await call("GET", path, query, undefined, signal)).body;
}

/** `{ status, body }`: a command's 200 and 202 mean different things. */
export function post(path, body) {
  return call("POST", path, undefined, body);
}

/** The same with another method. */
export function send(method, path, body) {
  return call(method, path, undefined, body);
}

async function call(method, path, query, body, signal) {
  const timeout = AbortSignal.timeout(TIMEOUT_MS);
  let response;
  try {
    response = await fetch(path + search(query), {
      method,
      headers: body === undefined ? { Accept: "application/json" } : { Accept: "application/json", "Content-Type": "application/json" },
      body: body === undefined ? undefined : JSON.stringify(body),
      signal: signal ? AbortSignal.any([signal, timeout]) : timeout,
      cache: "no-store",
    });
  } catch (error) {
    if (signal?.aborted) throw error;
    throw new ApiError(timeout.aborted ? t("error.timeout") : t("error.unreachable"), 0, null);
  }
  return answer(response);
}

async function answer(response) {
  const text = await response.text().catch(() => "");
  let content = null;
  try {
    content = text ? JSON.parse(text) : null;
  } catch {
    // Not JSON: a proxy's error page, say. The status line is what there is to show.
  }
  if (response.ok && (content !== null || !text)) return { status: response.status, body: content };
  const message = content?.detail || content?.title || t("error.status", { status: response.status });
  throw new ApiError(message, response.status, content);
}

function search(query) {
  const kept = Object.entries(query ?? {}).filter(([, value]) => value !== undefined && value !== null && value !== "");
  return kept.length ? `?${new URLSearchParams(kept)}` : "";
}
