// Charts of the last minutes, drawn by uPlot. They begin when the page is opened: the queen keeps no history.

import { Component, createRef, html } from "./html.js";

const POINTS = 300; // one a second

// Values by name, over time
export class History {
  constructor() {
    this.times = [];
    this.values = {};
    this.tokens = new Map(); // of each task, at the last look
  }

  // Take the present values. Call it once a second.
  take(state) {
    const queen = state.queen ?? { running: 0, queued_interactive: 0, queued_batch: 0 };
    const tokens = this.grown(state);
    this.add({
      tokens: this.times.length ? tokens : 0,
      running: queen.running,
      waiting: queen.queued_interactive + queen.queued_batch,
      power: state.all("gpus").reduce((sum, gpu) => sum + (gpu.power_w ?? 0), 0),
    });
  }

  // Tokens since the last look. An old task that was not listed then does not count.
  grown(state) {
    const before = this.tokens;
    this.tokens = new Map();
    let sum = 0;
    for (const task of state.all("tasks")) {
      const now = task.usage.tokens_out;
      const isNew = state.age(task.timings.submitted_at) < 2000;
      sum += Math.max(0, now - (before.get(task.task_id) ?? (isNew ? 0 : now)));
      this.tokens.set(task.task_id, now);
    }
    return sum;
  }

  add(values) {
    this.times = [...this.times.slice(1 - POINTS), Date.now() / 1000];
    for (const [name, value] of Object.entries(values)) {
      this.values[name] = [...(this.values[name] ?? []).slice(1 - POINTS), value];
    }
  }

  last(name) {
    return this.values[name]?.at(-1) ?? 0;
  }
}

function clock(seconds) {
  return new Date(1000 * seconds).toLocaleTimeString([], { hour: "2-digit", minute: "2-digit", hour12: false });
}

// `series` are {name, label}; the first has the stronger colour.
export class Chart extends Component {
  element = createRef();
  scheme = matchMedia("(prefers-color-scheme: dark)");

  componentDidMount() {
    this.draw = () => this.create();
    this.scheme.addEventListener("change", this.draw);
    this.resizing = new ResizeObserver(() => this.plot?.setSize(this.size()));
    this.resizing.observe(this.element.current);
    this.create();
  }

  componentWillUnmount() {
    this.scheme.removeEventListener("change", this.draw);
    this.resizing.disconnect();
    this.plot?.destroy();
  }

  componentDidUpdate() {
    this.plot?.setData(this.data());
  }

  size() {
    return { width: Math.max(160, this.element.current.clientWidth), height: 120 };
  }

  data() {
    const { history, series } = this.props;
    return [history.times, ...series.map(({ name }) => history.values[name] ?? [])];
  }

  create() {
    this.plot?.destroy();
    const color = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
    const axis = { stroke: color("--soft"), grid: { stroke: color("--line") }, ticks: { show: false } };
    const colors = [color("--accent"), color("--second")];
    const options = {
      ...this.size(),
      legend: { show: false },
      cursor: { show: false },
      scales: { y: { range: (_plot, _low, high) => [0, Math.max(1, high * 1.1)] } },
      axes: [{ ...axis, size: 26, space: 90, values: (_plot, times) => times.map(clock) }, { ...axis, size: 44 }],
      series: [{}, ...this.props.series.map((_each, index) => ({ stroke: colors[index], points: { show: false } }))],
    };
    this.plot = new window.uPlot(options, this.data(), this.element.current);
  }

  render({ title, history, series, unit }) {
    const now = series.map(({ name, label }) => `${Math.round(history.last(name))} ${label}`).join(", ");
    return html`<figure class="chart">
      <figcaption>${title}: <strong>${now}</strong>${unit}</figcaption>
      <div ref=${this.element} role="img" aria-label=${`${title} of the last minutes, now ${now}`}></div>
    </figure>`;
  }
}
