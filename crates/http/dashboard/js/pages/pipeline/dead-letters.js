// What was accepted and could not be processed, with the reason and where it stands in the log.
import { html } from "../../dom.js";
import * as format from "../../format.js";
import { t } from "../../i18n.js";
import { usePages } from "../../live/pages.js";
import { Failure, ListFoot, Nothing, Panel } from "../../parts/states.js";
import { Table } from "../../parts/table.js";
import { Moment } from "../../parts/time.js";

const PAGE_SIZE = 20;
const ROW_LIMIT = 500;

export function DeadLetters() {
  const letters = usePages("/api/dead-letters", "dead_letters", { limit: PAGE_SIZE }, { idOf: (letter) => format.position(letter.position), limit: ROW_LIMIT, every: 10000 });
  const { rows } = letters;
  const columns = [
    { key: "reason", className: "lead summary-cell", render: (letter) => html`<${Letter} letter=${letter} />` },
    { key: "source", render: (letter) => html`<code class="small nowrap">${format.position(letter.source)}</code>` },
    { key: "key", className: "low mid", render: (letter) => letter.key && html`<code class="small break">${letter.key}</code>` },
    { key: "by", className: "low mid", render: (letter) => html`<span class="muted">${letter.consumer_id}</span>` },
    { key: "at", render: (letter) => html`<${Moment} at=${letter.at} />` },
  ].map((column) => ({ ...column, label: t(`letters.col.${column.key}`) }));
  return html`<${Panel} title=${t("letters.title")} flush className="long" testid="dead-letters" end=${letters.data && html`<span class="muted small" data-testid="dead-letters-total">${format.integer(letters.data.total)}</span>`}>
    <${Failure} resource=${letters} />
    ${letters.data && rows.length === 0 && html`<${Nothing}>${t("letters.none")}<//>`}
    ${rows.length > 0 && html`<${Table} caption=${t("letters.title")} columns=${columns} rows=${rows} rowKey=${(letter) => format.position(letter.position)}
      rowProps=${(letter) => ({ "data-testid": "dead-letter-row", "data-source": format.position(letter.source) })} />`}
    ${rows.length > 0 && html`<${ListFoot} more=${letters.more} text=${t("page.shown", { shown: format.integer(rows.length), total: format.integer(letters.data.total) })} />`}
  <//>`;
}

function Letter({ letter }) {
  return html`<details><summary class="break" lang="en">${letter.reason}</summary><pre class="code wrap letter-value" tabindex="0">${letter.value}</pre></details>`;
}
