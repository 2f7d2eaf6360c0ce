// What was accepted and could not be processed, with the reason and where it stands in the log.
import { html, useSignal } from "../../dom.js";
import { get } from "../../api.js";
import * as format from "../../format.js";
import { t } from "../../i18n.js";
import { useResource } from "../../live/resource.js";
import { Failure, Nothing, Panel } from "../../parts/states.js";
import { Table } from "../../parts/table.js";
import { Moment } from "../../parts/time.js";

const PAGE_SIZE = 20;
const ROW_LIMIT = 500;

export function DeadLetters() {
  const first = useResource("/api/dead-letters", { query: { limit: PAGE_SIZE }, every: 10000 });
  const further = useSignal({ rows: [], cursor: undefined, error: null });
  const had = new Set((first.data?.dead_letters ?? []).map((letter) => format.position(letter.position)));
  const rows = [...(first.data?.dead_letters ?? []), ...further.value.rows.filter((letter) => !had.has(format.position(letter.position)))];
  const cursor = further.value.cursor === undefined ? first.data?.next_cursor : further.value.cursor;
  const more = async () => {
    try {
      const page = await get("/api/dead-letters", { limit: PAGE_SIZE, cursor });
      further.value = { rows: [...further.value.rows, ...page.dead_letters], cursor: page.next_cursor ?? null, error: null };
    } catch (error) {
      further.value = { ...further.value, error };
    }
  };
  const columns = [
    { key: "reason", className: "lead summary-cell", render: (letter) => html`<${Letter} letter=${letter} />` },
    { key: "source", render: (letter) => html`<code class="small">${format.position(letter.source)}</code>` },
    { key: "key", className: "low", render: (letter) => letter.key && html`<code class="small break">${letter.key}</code>` },
    { key: "by", className: "low", render: (letter) => html`<span class="muted">${letter.consumer_id}</span>` },
    { key: "at", render: (letter) => html`<${Moment} at=${letter.at} />` },
  ].map((column) => ({ ...column, label: t(`letters.col.${column.key}`) }));
  return html`<${Panel} title=${t("letters.title")} flush className="long" testid="dead-letters" end=${first.data && html`<span class="muted small" data-testid="dead-letters-total">${format.integer(first.data.total)}</span>`}>
    <${Failure} resource=${first} />
    ${first.data && rows.length === 0 && html`<${Nothing}>${t("letters.none")}<//>`}
    ${rows.length > 0 && html`<${Table} caption=${t("letters.title")} columns=${columns} rows=${rows} rowKey=${(letter) => format.position(letter.position)}
      rowProps=${(letter) => ({ "data-testid": "dead-letter-row", "data-source": format.position(letter.source) })} />`}
    ${(cursor && rows.length < ROW_LIMIT || further.value.error) && html`<div class="table-foot"><span>${t("page.shown", { shown: format.integer(rows.length), total: format.integer(first.data.total) })}</span>
      <span class="end">${further.value.error && html`<span role="alert" class="sev-critical">${further.value.error.message}</span>`}<button type="button" class="button" onClick=${more}>${t("page.more")}</button></span></div>`}
  <//>`;
}

function Letter({ letter }) {
  return html`<details><summary class="break" lang="en">${letter.reason}</summary><pre class="code wrap letter-value" tabindex="0">${letter.value}</pre></details>`;
}
