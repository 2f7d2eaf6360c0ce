// How values of services are written: those whose meaning is known by their name, and any other by its unit.
import * as format from "../format.js";
import { known, t } from "../i18n.js";
import { said } from "./sentences.js";

export const metricTitle = (name) => (known(`metric.${name}`) ? t(`metric.${name}`) : name);

/** A value of a metric with its unit. */
export function metricText(name, value, unit) {
  if (typeof value !== "number") return "–";
  if (name.endsWith("_seconds")) return format.duration(value * 1000);
  if (name.endsWith("_ms")) return format.duration(value);
  if (name.endsWith("_percent")) return `${format.rate(value)}\u00a0%`;
  if (name.endsWith("_bytes")) return format.bytes(value);
  if (name.endsWith("_bytes_per_second")) return `${format.bytes(value)}/s`;
  if (name.endsWith("_per_second")) return `${format.rate(value)}/s`;
  return format.quantity(value, unit);
}

/** Memory as the service tells it. */
export function memoryText({ memory_percent: percent, memory_bytes: bytes }) {
  return typeof percent === "number" ? metricText("memory_percent", percent) : metricText("memory_bytes", bytes);
}

/** How near a service is to this page: the machine, Farol's own process, any other. */
export const distance = ({ kind, service }) => (kind === "host" ? 0 : service === "farol" ? 1 : 2);

/** What stands beside an event's name in one line. */
export function factOf(data) {
  const { check, reason, motivo, by, cause, name, nome = name, value, valor = value, unit, unidade = unit, from, to } = data ?? {};
  if (typeof nome === "string" && typeof valor === "number") return `${metricTitle(nome)} ${metricText(nome, valor, unidade)}`;
  return [check ?? name, from && to && `${from} → ${to}`, said(reason ?? motivo ?? cause), by].filter(Boolean).join(" · ");
}
