// Tables that become lists on a narrow screen (style.css), a page of rows at a time.

import { Component, html } from "./html.js";

const PAGE = 25;
const LONG = ["Model", "Engine", "State", "Progress", "Event", "Problem"]; // columns whose words may be broken

// `columns` are headings. `rows` are {key, cells}: a cell is text or a vnode. `empty` is shown instead of no rows.
export class Table extends Component {
  constructor() {
    super();
    this.state = { page: 0 };
  }

  render({ caption, columns, rows, empty }, { page }) {
    if (rows.length === 0) return html`<p class="empty">${empty}</p>`;
    const pages = Math.ceil(rows.length / PAGE);
    const current = Math.min(page, pages - 1);
    const shown = rows.slice(current * PAGE, (current + 1) * PAGE).map((row) => (typeof row === "function" ? row() : row));
    // the roles are said again, because a table that is laid out as a list loses them
    return html`<table role="table">
        <caption>${caption}</caption>
        <thead role="rowgroup"><tr role="row">
          ${columns.map((name) => html`<th role="columnheader" scope="col">${name}</th>`)}
        </tr></thead>
        <tbody role="rowgroup">
          ${shown.map(({ key, cells }) => html`<tr role="row" key=${key}>
            ${cells.map((cell, index) => html`<td role="cell" data-label=${columns[index]}
              class=${LONG.includes(columns[index]) ? "long" : ""}>${cell}</td>`)}
          </tr>`)}
        </tbody>
      </table>
      ${pages > 1 && this.pager(current, pages, rows.length, caption)}`;
  }

  pager(current, pages, count, caption) {
    const go = (page) => () => this.setState({ page });
    return html`<nav class="pager" aria-label=${`Pages of ${caption}`}>
      <button disabled=${current === 0} onClick=${go(current - 1)}>Previous</button>
      <span>${current * PAGE + 1} to ${Math.min(count, (current + 1) * PAGE)} of ${count}</span>
      <button disabled=${current === pages - 1} onClick=${go(current + 1)}>Next</button>
    </nav>`;
  }
}
