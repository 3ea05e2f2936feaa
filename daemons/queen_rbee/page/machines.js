// The machines: a summary, nodes, memory and GPUs.

import { Chart } from "./chart.js";
import { bytes, count, duration } from "./format.js";
import { html } from "./html.js";
import { Table } from "./table.js";

export function Overview({ state, history }) {
  const queen = state.queen;
  if (!queen) return html`<p class="empty">Loading…</p>`;
  const waiting = queen.queued_interactive + queen.queued_batch;
  const figures = [
    ["Pools ready", `${queen.pools_ready} of ${queen.pools}`],
    ["Running", queen.running],
    ["Waiting", `${waiting} of ${queen.capacity}`],
    ...(state.hello.profile === "cloud" ? [["Nodes online", `${queen.nodes_online} of ${queen.nodes}`]] : []),
  ];
  const powered = state.all("gpus").some((gpu) => gpu.power_w !== null);
  return html`<dl class="figures">
      ${figures.map(([name, value]) => html`<div><dt>${name}</dt><dd>${value}</dd></div>`)}
    </dl>
    <div class="charts">
      <${Chart} title="Tokens per second" history=${history} series=${[{ name: "tokens", label: "" }]} unit="" />
      <${Chart} title="Tasks" history=${history} unit=""
        series=${[{ name: "running", label: "running" }, { name: "waiting", label: "waiting" }]} />
      ${powered && html`<${Chart} title="Power of all GPUs" history=${history} unit="W"
        series=${[{ name: "power", label: "" }]} />`}
    </div>`;
}

export function Nodes({ state, actions }) {
  const nodes = state.all("nodes");
  const button = (node, label, action) => html`<button aria-label=${`${label} ${node.node_id}`}
    onClick=${() => actions.node(node, action)}>${label}</button>`;
  const rows = nodes.map((node) => () => ({
    key: node.node_id,
    cells: [
      node.node_id,
      html`<span class=${`state ${node.status}`}>${node.status}</span>`,
      node.last_heartbeat_at ? `${duration(state.age(node.last_heartbeat_at))} ago` : "–",
      node.version,
      node.address,
      html`<div class="buttons">
        ${node.status === "asleep" && button(node, "Wake", "wake")}
        ${node.status === "draining" ? button(node, "Resume", "resume") : button(node, "Drain", "drain")}
      </div>`,
    ],
  }));
  const columns = ["Node", "State", "Heartbeat", "Version", "Address", "Actions"];
  return html`<${Table} caption=${count(nodes.length, "node")} columns=${columns} rows=${rows}
    empty=${state.hello.profile === "cloud" ? "No node has registered." : "One machine, without nodes (HOME_PROFILE)."} />`;
}

export function Gpus({ state, actions }) {
  const gpus = state.all("gpus");
  const devices = state.all("memory").filter((each) => each.device === "cpu");
  const problems = Object.entries(state.queen?.gpu_problems ?? {});
  return html`${problems.map(([machine, problem]) => html`<p class="bad">${machine}: ${problem}</p>`)}
    ${gpus.length === 0 && html`<p class="empty">No GPUs are reported.</p>`}
    <ul class="cards">
      ${gpus.slice(0, 128).map((gpu) => html`<${Gpu} key=${gpu.uuid} gpu=${gpu} actions=${actions} />`)}
      ${devices.slice(0, 64).map((each) => html`<li key=${each.machine}>
        <h3>Memory of ${state.hello.profile === "cloud" ? each.machine : "this machine"}</h3>
        <${Bar} label="Used memory" used=${each.total_bytes - each.free_bytes} total=${each.total_bytes} />
      </li>`)}
    </ul>
    ${gpus.length > 128 && html`<p>${gpus.length - 128} more GPUs are not shown. orchctl gpus lists them.</p>`}`;
}

function Gpu({ gpu, actions }) {
  const used = gpu.vram_used_bytes ?? gpu.vram_total_bytes - gpu.vram_free_bytes;
  const figures = [
    gpu.utilization !== null && `${gpu.utilization} % busy`,
    gpu.temperature_c !== null && `${gpu.temperature_c} °C`,
    gpu.power_w !== null && `${Math.round(gpu.power_w)} W${gpu.power_limit_w ? ` of ${Math.round(gpu.power_limit_w)} W` : ""}`,
  ].filter(Boolean);
  const where = gpu.node_id ? `${gpu.node_id}, GPU ${gpu.index}` : `GPU ${gpu.index}`;
  const pools = (gpu.pools ?? []).map((pool) => pool.pool_id);
  return html`<li>
    <h3>${gpu.name} <small>${where}${gpu.mig_index !== null ? `, MIG ${gpu.mig_index}` : ""}</small></h3>
    <${Bar} label="Used VRAM" used=${used} total=${gpu.vram_total_bytes} />
    <p>${figures.join(" · ") || "The driver reports no figures."}</p>
    ${pools.length > 0 && html`<p>Pools: ${pools.join(", ")}</p>`}
    ${gpu.state !== "ok" && html`<p class="bad">${gpu.state}${gpu.state_reason ? `: ${gpu.state_reason}` : ""}</p>`}
    ${gpu.state === "fenced" && html`<button onClick=${() => actions.unfence(gpu)}>End the fence</button>`}
  </li>`;
}

function Bar({ label, used, total }) {
  const text = `${bytes(used)} of ${bytes(total)}`;
  return html`<div class="bar">
    <meter min="0" max=${total} value=${used} aria-label=${`${label}: ${text}`}></meter>
    <span>${text}</span>
  </div>`;
}
