// Pipeline: who produces, who consumes, who owns which partition, how far behind, and what could not be processed.
import { html, useEffect } from "../dom.js";
import * as format from "../format.js";
import { t, word } from "../i18n.js";
import { usePages } from "../live/pages.js";
import { useResource } from "../live/resource.js";
import { say } from "../live/speech.js";
import { status } from "../live/status.js";
import { listen } from "../live/stream.js";
import { Level, Mark } from "../parts/icons.js";
import { refusal } from "../parts/sentences.js";
import { PageHead } from "../parts/shell.js";
import { Failure, Nothing, Panel, Waiting } from "../parts/states.js";
import { Table } from "../parts/table.js";
import { Ago } from "../parts/time.js";
import { causeText } from "./pipeline/changes.js";
import { DeadLetters } from "./pipeline/dead-letters.js";
import { Group } from "./pipeline/group.js";
import { chosenGroup, Groups, isStable } from "./pipeline/groups.js";
import { reassigned } from "./pipeline/members.js";
import { costText } from "./pipeline/timeline.js";
import { keyOf, newestFirst, REBALANCES_LIMIT, Rebalances } from "./pipeline/rebalances.js";

const PAGE_SIZE = 100;
/** Heartbeats change nothing that the next poll wouldn't show soon enough; of many workers they would cost a request each. */
const LIVE = { on: ["pipeline"], only: (message) => !message.type?.endsWith("_pulsou"), settle: 150 };

export function PipelinePage({ id }) {
  const groups = useResource("/api/groups", { ...LIVE, every: 2000 });
  const list = groups.data?.groups ?? [];
  const chosen = chosenGroup(list, id);
  const name = chosen?.group ?? id;
  const workers = useResource("/api/workers", { ...LIVE, every: 2000 });
  const consumers = useResource("/api/consumer-health", { ...LIVE, every: 2000 });
  const producers = useResource("/api/producer-health", { ...LIVE, every: 2000 });
  // While partitions move, the picture is asked for more often than it otherwise changes.
  const group = useResource(name ? `/api/groups/${encodeURIComponent(name)}` : null, { ...LIVE, every: chosen && !isStable(chosen.state) ? 500 : 2000 });
  const history = usePages(name ? "/api/rebalances" : null, "rebalances", { group: name, limit: PAGE_SIZE }, { ...LIVE, idOf: keyOf, limit: REBALANCES_LIMIT, every: 10000 });
  useEffect(() => listen("pipeline", (messages) => {
    const rebalances = messages.filter((event) => event.type === "particoes_reatribuidas" && event.data.group === name).map((event) => event.data);
    if (rebalances.length === 0) return;
    // Shown at once from the message; the answer of the API that follows is the same, with lags.
    group.mutate((data) => rebalances.reduce(reassigned, data));
    history.mutate((data) => ({ ...data, rebalances: newestFirst([...rebalances, ...data.rebalances]) }));
    // Who doesn't see the tiles travel hears of it.
    say(rebalances.map((each) => `${causeText(each)}. ${costText(each)}`).join(" "));
  }), [name]);
  const reload = () => [workers, group, groups].forEach((resource) => resource.reload());
  const here = group.data?.group === name ? group.data : null;
  const rebalances = history.rows.filter((each) => each.group === name);
  return html`<div class="page pipeline">
    <${PageHead} title=${t("nav.pipeline")} />
    <${Failure} resource=${groups} />
    ${!groups.data && !groups.error && html`<${Waiting} />`}
    ${groups.data && list.length === 0 && html`<p class="banner info">${t("pipeline.noGroups")}</p>`}
    ${list.length > 0 && html`<${Groups} groups=${list} chosen=${name} />`}
    ${id && groups.data && !chosen && html`<p class="banner info" data-testid="no-group">${t("pipeline.noGroup", { group: id })}</p>`}
    ${chosen && html`<${Failure} resource=${group} />`}
    ${here && html`<${Group} key=${here.group} group=${here} rebalances=${rebalances} complete=${!history.more.available} workers=${workers.data?.workers ?? []} onWorkers=${reload} />`}
    ${name && html`<${Rebalances} history=${history} rebalances=${rebalances} />`}
    <${Consumers} resource=${consumers} />
    <div class="two-columns">
      <${Producers} resource=${producers} />
      <div class="stack"><${Views} data=${status.value.data} /><${Topics} data=${status.value.data} /></div>
    </div>
    <${DeadLetters} />
  </div>`;
}

function Consumers({ resource }) {
  const rows = resource.data?.consumers ?? [];
  const columns = [
    { key: "consumer", className: "lead", render: (c) => html`<span class="id" title=${c.consumer_id}>${c.consumer_id}</span>` },
    { key: "group", className: "low mid", render: (c) => html`<span class="muted id">${c.group}</span>` },
    { key: "status", className: "bare", render: (c) => html`<span class=${`badge ${c.status}`} data-testid="consumer-status">${word("member", c.status)}</span>` },
    { key: "partitions", className: "wide", render: (c) => html`<span class="names">${c.partitions.length ? c.partitions.map((name) => html`<code key=${name} class="small nowrap">${name}</code>`) : "–"}</span>` },
    { key: "lag", num: true, render: (c) => format.integer(c.lag_records) },
    { key: "lagTime", num: true, render: (c) => format.duration(c.lag_ms) },
    { key: "rate", num: true, render: (c) => format.rate(c.records_per_s) },
    { key: "processed", num: true, className: "low mid", render: (c) => format.compact(c.records_processed) },
    { key: "errors", num: true, render: (c) => html`<span class=${c.errors ? "sev-error strong" : "muted"}>${format.integer(c.errors)}</span>` },
    { key: "heartbeat", num: true, render: (c) => html`<${Ago} at=${c.last_heartbeat} />` },
  ].map((column) => ({ ...column, label: t(`pipeline.col.${column.key}`) }));
  return html`<${Panel} title=${t("pipeline.consumers")} flush testid="consumers">
    <${Failure} resource=${resource} />
    ${resource.data && rows.length === 0 && html`<${Nothing}>${t("pipeline.noConsumers")}<//>`}
    ${rows.length > 0 && html`<${Table} caption=${t("pipeline.consumers")} columns=${columns} rows=${rows} rowKey=${(c) => `${c.group} ${c.consumer_id}`}
      rowProps=${(c) => ({ "data-testid": "consumer-row", "data-consumer-id": c.consumer_id, "data-status": c.status, className: c.status === "active" ? "" : "dim" })} />`}
  <//>`;
}

function Producers({ resource }) {
  const rows = resource.data?.producers ?? [];
  const columns = [
    { key: "producer", className: "lead", render: (p) => html`<span class="id" title=${p.producer_id}>${p.producer_id}</span>` },
    { key: "kind", render: (p) => word("producer", p.kind) },
    { key: "status", className: "bare", render: (p) => html`<span class=${`badge ${p.status}`}>${word("member", p.status)}</span>` },
    { key: "sent", num: true, render: (p) => format.compact(p.records_sent) },
    { key: "rate", num: true, render: (p) => format.rate(p.records_per_s) },
    { key: "rejected", num: true, render: (p) => html`<span class=${p.rejected ? "sev-error strong" : "muted"}>${format.integer(p.rejected)}</span>` },
    { key: "heartbeat", num: true, render: (p) => html`<${Ago} at=${p.last_heartbeat} />` },
  ].map((column) => ({ ...column, label: t(`pipeline.col.${column.key}`) }));
  return html`<${Panel} title=${t("pipeline.producers")} flush testid="producers">
    <${Failure} resource=${resource} />
    ${resource.data && rows.length === 0 && html`<${Nothing}>${t("pipeline.noProducers")}<//>`}
    ${rows.length > 0 && html`<${Table} caption=${t("pipeline.producers")} columns=${columns} rows=${rows} rowKey=${(p) => p.producer_id}
      rowProps=${(p) => ({ "data-testid": "producer-row", "data-producer-id": p.producer_id, "data-status": p.status, className: p.status === "active" ? "" : "dim" })} />`}
  <//>`;
}

function Views({ data }) {
  const rows = data?.views ?? [];
  return html`<${Panel} title=${t("pipeline.views")} flush testid="views">
    <ul class="lines">${rows.map((view) => html`<li key=${view.name} data-testid="view-row" data-view=${view.name} data-ok=${view.ok}>
      <span class=${`sev ${view.ok ? "sev-normal" : "sev-error"}`}><${Mark} level=${view.ok ? "normal" : "error"} /><span class="visually-hidden">${t(view.ok ? "pipeline.viewOk" : "pipeline.viewFailed")}</span></span>
      <span class="break">${view.name}${view.error && html` <span class="small sev-error" lang="en">${view.error}</span>`}</span>
      <span class="n">${t("pipeline.behind", { n: format.integer(view.lag_records) })}</span></li>`)}</ul>
  <//>`;
}

function Topics({ data }) {
  const rows = data?.log?.topics ?? [];
  const columns = [
    { key: "topic", className: "lead", render: (topic) => html`<code>${topic.name}</code>` },
    { key: "partitionCount", num: true, render: (topic) => format.integer(topic.partitions) },
    { key: "records", num: true, render: (topic) => format.integer(topic.records) },
    { key: "size", num: true, render: (topic) => format.bytes(topic.bytes) },
  ].map((column) => ({ ...column, label: t(`pipeline.col.${column.key}`) }));
  return html`<${Panel} title=${t("pipeline.topics")} flush testid="topics"
      end=${data?.log?.poisoned && html`<span><${Level} level="critical" /> ${refusal(data.log)}</span>`}>
    <${Table} caption=${t("pipeline.topics")} columns=${columns} rows=${rows} rowKey=${(topic) => topic.name} rowProps=${(topic) => ({ "data-testid": "topic-row", "data-topic": topic.name })} />
  <//>`;
}
