// Tables: keyboard (arrow keys walk the rows' links), sorting, and cards on phones.
// The roles are written out because the cards' `display` would otherwise take the table away from screen readers.
import { html } from "../dom.js";
import { t } from "../i18n.js";
import { Icon } from "./icons.js";

/**
 * columns: [{ key, label, num?, sort?, className?, render(row) }]; `sort` is the API's field, "-field" descending.
 * rowProps(row) gives attributes of the row, `href` among them makes the whole row lead there (its first cell holds the link).
 */
export function Table({ caption, columns, rows, rowKey, rowProps = () => ({}), sort, onSort, testid }) {
  return html`<div class="table-wrap">
    <table class="cards" role="table" aria-label=${caption} data-testid=${testid}>
      <thead role="rowgroup"><tr role="row">
        ${columns.map((column) => html`<${Head} key=${column.key} column=${column} sort=${sort} onSort=${onSort} />`)}
      </tr></thead>
      <tbody role="rowgroup" onKeyDown=${walk}>
        ${rows.map((row) => {
          const { href, className = "", ...rest } = rowProps(row);
          return html`<tr role="row" key=${rowKey(row)} class=${`${href ? "rowlink" : ""} ${className}`} onClick=${href ? (event) => follow(event, href) : undefined} ...${rest}>
            ${columns.map((column) => html`<td role="cell" key=${column.key} data-label=${column.label} class=${`${column.num ? "num" : ""} ${column.className ?? ""}`}>${column.render(row)}</td>`)}
          </tr>`;
        })}
      </tbody>
    </table>
  </div>`;
}

function Head({ column, sort, onSort }) {
  const className = `${column.num ? "num" : ""} ${column.className ?? ""}`;
  if (!column.sort || !onSort) return html`<th role="columnheader" scope="col" class=${className}>${column.label}</th>`;
  const descending = sort === `-${column.sort}`;
  const active = descending || sort === column.sort;
  const next = active && !descending ? `-${column.sort}` : column.sort;
  return html`<th role="columnheader" scope="col" class=${className} aria-sort=${active ? (descending ? "descending" : "ascending") : undefined}>
    <button type="button" data-testid=${`sort-${column.sort}`} title=${t("table.sort", { column: column.label })} onClick=${() => onSort(next)}>
      ${column.label}<${Icon} className="dir" name=${descending ? "descending" : "ascending"} /></button></th>`;
}

/** A click anywhere in the row follows its link, unless it meant a control or a selection of text. */
function follow(event, href) {
  if (event.defaultPrevented || event.target.closest("a, button, input, summary, dialog") || String(getSelection())) return;
  if (event.metaKey || event.ctrlKey) open(href, "_blank", "noopener");
  else location.hash = href;
}

function walk(event) {
  const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
  if (!step || event.target.closest("input, textarea, select")) return;
  const links = [...event.currentTarget.querySelectorAll("tr td:first-child a")];
  const at = links.findIndex((link) => link.closest("tr") === event.target.closest("tr"));
  const next = links[at + step];
  if (!next) return;
  event.preventDefault();
  next.focus();
}
