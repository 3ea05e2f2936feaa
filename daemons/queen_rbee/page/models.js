// Models: those that pools serve, with the progress of their downloads, and those of the catalog.

import { count, poolName } from "./format.js";
import { html } from "./html.js";
import { Table } from "./table.js";

export function Models({ state }) {
  const models = new Map();
  for (const pool of state.all("pools")) {
    for (const name of pool.models_available.length ? pool.models_available : [poolName(pool)]) {
      if (!models.has(name)) models.set(name, { name, pools: [], entries: [] });
      models.get(name).pools.push(pool);
    }
  }
  for (const entry of state.all("models")) {
    const name = entry.model_ref;
    if (!models.has(name)) models.set(name, { name, pools: [], entries: [] });
    models.get(name).entries.push(entry);
  }
  const rows = [...models.values()].map((model) => () => ({
    key: model.name,
    cells: [
      model.name,
      model.pools.slice(0, 8).map((pool) => html`<${Pool} key=${poolName(pool)} pool=${pool} />`),
      model.entries.map((entry) => html`<span class="note">${entry.id}: ${entry.state.toLowerCase()},
        ${entry.digest ? entry.verification.state : "no digest"}</span>`),
    ],
  }));
  return html`<${Table} caption=${count(models.size, "model")} rows=${rows} empty="No models are known."
    columns=${["Model", "Pools", "Catalog"]} />`;
}

function Pool({ pool }) {
  const percent = /\b(\d{1,3}) %/.exec(pool.detail ?? "")?.[1];
  const progress = ["provisioning", "starting"].includes(pool.state) && percent;
  return html`<span class="note">${poolName(pool)}: ${pool.detail && progress ? pool.detail : pool.state}
    ${progress && html`<progress max="100" value=${percent} aria-label=${`Download for ${poolName(pool)}`}></progress>`}
  </span>`;
}
