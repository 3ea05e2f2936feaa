// Pools, with what can be done to them, and the operations that do it.

import { bytes, clock, count, poolName } from "./format.js";
import { Component, html } from "./html.js";
import { Table } from "./table.js";

const COMING_UP = ["provisioning", "starting"];
const OPERATIONS = 25;

export class Pools extends Component {
  constructor() {
    super();
    this.state = { filter: "" };
  }

  render({ state, actions }, { filter }) {
    const words = filter.toLowerCase().split(/\s+/).filter(Boolean);
    const pools = state.all("pools").filter((pool) => words.every((word) => text(pool).includes(word)));
    const rows = pools.map((pool) => () => ({ key: poolName(pool), cells: cells(pool, state, actions) }));
    const known = state.sections.pools.size;
    return html`<label class="filter">Filter <input type="search" value=${filter}
        onInput=${(event) => this.setState({ filter: event.target.value })} /></label>
      <${Table} caption=${count(pools.length, "pool")} rows=${rows}
        columns=${["Pool", "State", "Model", "Engine", "Running", "Memory", "Actions"]}
        empty=${known ? "No pool matches the filter." : "No pools are known. orchctl run adds one."} />
      <h3>Operations</h3>
      <${Operations} state=${state} actions=${actions} />`;
  }
}

function text(pool) {
  return `${poolName(pool)} ${pool.state} ${pool.engine} ${pool.models_available.join(" ")}`.toLowerCase();
}

function cells(pool, state, actions) {
  const problem = pool.last_error ?? (pool.circuit !== "closed" ? `circuit ${pool.circuit}` : null);
  const need = Object.values(pool.residency?.need_bytes ?? {}).reduce((sum, each) => sum + each, 0);
  return [
    poolName(pool),
    html`<span class=${`state ${pool.state}`}>${pool.state}</span>
      ${pool.draining && pool.state !== "draining" && html` <span class="state draining">drained</span>`}
      ${problem && html`<span class="bad note">${problem}</span>`}
      ${!problem && pool.detail && pool.state !== "unloaded" && html`<span class="note">${pool.detail}</span>`}`,
    pool.models_available.join(", ") || "–",
    pool.engine_version ? `${pool.engine} ${pool.engine_version}` : pool.engine,
    `${pool.active_leases} of ${pool.slots_total}`,
    need ? bytes(need) : pool.vram_total_bytes ? `${bytes(pool.vram_total_bytes - pool.vram_free_bytes)} used` : "–",
    html`<${PoolButtons} pool=${pool} allowed=${state.hello.pool_actions} actions=${actions} />`,
  ];
}

// Buttons of actions that this release does not have are disabled.
function PoolButtons({ pool, allowed, actions }) {
  const button = (label, action, enabled = true) => html`<button disabled=${!enabled || !allowed.includes(action)}
    aria-label=${`${label} ${poolName(pool)}`} onClick=${() => actions.pool(pool, action)}>${label}</button>`;
  const onDemand = pool.residency !== null;
  const loaded = pool.ready || COMING_UP.includes(pool.state);
  return html`<div class="buttons">
    ${loaded ? button("Unload", "unload", onDemand) : button("Load", "preload", onDemand)}
    ${pool.draining ? button("Resume", "resume") : button("Drain", "drain")}
    ${button("Reload", "reload")}
    ${button("Purge", "purge", onDemand)}
  </div>`;
}

function Operations({ state, actions }) {
  const operations = state.all("operations").slice(0, OPERATIONS);
  const rows = operations.map((each) => ({
    key: each.operation_id,
    cells: [
      each.kind,
      [each.pool_id, each.node_id].filter(Boolean).join("@"),
      html`<span class=${`state ${each.state}`}>${each.state}</span>`,
      [each.message, each.state === "running" && each.leases_left && `${count(each.leases_left, "task")} left`]
        .filter(Boolean)
        .join("; ") || "–",
      clock(each.started_at),
      each.state === "running"
        ? html`<button aria-label=${`Cancel ${each.kind} of ${each.pool_id ?? each.node_id}`}
            onClick=${() => actions.cancelOperation(each)}>Cancel</button>`
        : "",
    ],
  }));
  return html`<${Table} caption="The last operations" rows=${rows}
    columns=${["Operation", "Of", "State", "Progress", "Started", "Actions"]} empty="None yet." />`;
}
