// The queue and the tasks, with the text of one of them as it comes.

import { eventsOf, send } from "./api.js";
import { clock, count, duration } from "./format.js";
import { Component, html } from "./html.js";
import { Table } from "./table.js";

const TEXT_LIMIT = 20000; // characters

export function Queue({ state, actions }) {
  const queen = state.queen;
  const waiting = ofState(state, "queued").sort((one, other) => one.queue_position - other.queue_position);
  const rows = waiting.map((task) => ({
    key: task.task_id,
    cells: [
      task.queue_position + 1,
      html`<${Name} task=${task} />`,
      task.model_ref ?? "–",
      task.priority,
      duration(state.age(task.timings.submitted_at)),
      task.predicted_start_ms === null ? "unknown" : `in ${duration(task.predicted_start_ms)}`,
      html`<${Cancel} task=${task} actions=${actions} />`,
    ],
  }));
  const all = queen ? queen.queued_interactive + queen.queued_batch : 0;
  const caption = all > waiting.length ? `The first ${waiting.length} of ${all} waiting tasks` : count(all, "waiting task");
  return html`<${Table} caption=${caption} rows=${rows} empty="No task waits."
    columns=${["Position", "Task", "Model", "Priority", "Waited", "Starts", "Actions"]} />`;
}

export class Tasks extends Component {
  constructor() {
    super();
    this.state = { shown: null, text: "" };
  }

  componentWillUnmount() {
    this.stop?.abort();
  }

  render({ state, actions }, { shown, text }) {
    const running = ofState(state, "running");
    const ended = state.all("tasks").filter((task) => !["queued", "running"].includes(task.state));
    return html`<${Table} caption=${count(running.length, "running task")} empty="No task runs."
        columns=${["Task", "Model", "Pool", "Tokens", "Rate", "Time", "Actions"]}
        rows=${running.map((task) => this.running(task, state, actions))} />
      ${shown && html`<div class="text">
        <h3 id="text-title">Text of task ${short(shown)}</h3>
        <pre role="log" tabindex="0" aria-labelledby="text-title">${text}</pre>
        <button onClick=${() => this.show(null)}>Close</button>
      </div>`}
      <details><summary>Ended tasks</summary>
        <${Table} caption="The last tasks that ended" empty="None yet."
          columns=${["Task", "State", "Model", "Pool", "Tokens", "Ended", "Waited", "Problem"]}
          rows=${ended.map((task) => () => ended_row(task))} />
      </details>`;
  }

  running(task, state, actions) {
    const started = task.timings.started_at;
    const elapsed = started ? state.age(started) : 0;
    const decoding = elapsed - (task.timings.first_token_ms ?? 0);
    const tokens = task.usage.tokens_out;
    return {
      key: task.task_id,
      cells: [
        html`<${Name} task=${task} />`,
        task.model_ref ?? "–",
        task.pool_id ?? "–",
        tokens,
        tokens && decoding > 500 ? `${((1000 * tokens) / decoding).toFixed(1)}/s` : "–",
        duration(elapsed),
        html`<div class="buttons">
          <button aria-label=${`Text of task ${short(task.task_id)}`}
            onClick=${() => this.show(task.task_id)}>Text</button>
          <${Cancel} task=${task} actions=${actions} />
        </div>`,
      ],
    };
  }

  // Follow the text of a task. Reading it counts as a client that has received a part of the answer.
  async show(taskId) {
    this.stop?.abort();
    this.stop = new AbortController();
    this.setState({ shown: taskId, text: "" });
    if (!taskId) return;
    const { signal } = this.stop;
    try {
      const answer = await send("GET", `v2/tasks/${taskId}/events`, undefined, signal);
      for await (const { event, data } of eventsOf(answer)) {
        if (signal.aborted) return;
        const piece = pieceOf(event, JSON.parse(data));
        if (piece) this.setState((state) => ({ text: (state.text + piece).slice(-TEXT_LIMIT) }));
      }
    } catch (error) {
      if (!signal.aborted) this.setState({ text: error.message });
    }
  }
}

function pieceOf(event, data) {
  if (event === "token") return data.t;
  if (event === "error") return `\n${data.code}: ${data.message}`;
  const choice = data.choices?.[0];
  return choice?.delta?.content ?? choice?.text ?? choice?.message?.content ?? "";
}

function ended_row(task) {
  return {
    key: task.task_id,
    cells: [
      html`<${Name} task=${task} />`,
      html`<span class=${`state ${task.state}`}>${task.state}</span>`,
      task.model_ref ?? "–",
      task.pool_id ?? "–",
      task.usage.tokens_out,
      task.timings.ended_at ? clock(task.timings.ended_at) : "–",
      duration(task.timings.queued_ms),
      task.error ? `${task.error.code}: ${task.error.message}` : "",
    ],
  };
}

function Name({ task }) {
  return html`<code title=${task.task_id}>${short(task.task_id)}</code> ${task.workload}`;
}

function Cancel({ task, actions }) {
  return html`<button class="danger" aria-label=${`Cancel task ${short(task.task_id)}`}
    onClick=${() => actions.cancelTask(task)}>Cancel</button>`;
}

function ofState(state, name) {
  return state.all("tasks").filter((task) => task.state === name);
}

export function short(taskId) {
  return taskId.slice(0, 8);
}
