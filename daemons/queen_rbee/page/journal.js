// The last events that queen-rbee logged, with the advice of the journal catalog.

import { clock } from "./format.js";
import { html } from "./html.js";
import { Table } from "./table.js";

export function Journal({ state }) {
  const entries = [...state.sections.journal].reverse();
  const rows = entries.map(([key, entry]) => () => ({
    key,
    cells: [
      clock(entry.at),
      html`<span class=${`state ${entry.level}`}>${entry.level}</span>`,
      html`${entry.text}<details><summary>Advice</summary><p>${entry.advice}</p></details>`,
      html`<code>${entry.event}</code>`,
    ],
  }));
  return html`<${Table} caption="Events of queen-rbee, newest first" rows=${rows} empty="None yet."
    columns=${["Time", "Level", "Event", "Name"]} />
    <p class="note">Those of the other daemons: journalctl -u pool-managerd -u engine-provisioner -x</p>`;
}
