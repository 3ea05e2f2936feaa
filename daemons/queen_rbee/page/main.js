// The page: its frame, its sections, and the actions of all buttons.

import { hasToken, send, setToken } from "./api.js";
import { History } from "./chart.js";
import { Chat } from "./chat.js";
import { Question, TokenDialog } from "./dialog.js";
import { clock, poolName } from "./format.js";
import { Component, html, render } from "./html.js";
import { Journal } from "./journal.js";
import { Gpus, Nodes, Overview } from "./machines.js";
import { Models } from "./models.js";
import { Pools } from "./pools.js";
import { State } from "./state.js";
import { Queue, short, Tasks } from "./tasks.js";

const NOTICE_MS = 8000;

const QUESTIONS = {
  preload: null,
  resume: null,
  unload: { text: "It is unloaded once its running tasks have ended. The next request loads it again.", verb: "Unload" },
  drain: { text: "No new tasks are placed there until it is resumed. Running tasks may end.", verb: "Drain" },
  reload: {
    text: "Running tasks end by themselves, and new ones wait. If the new model does not load, the old one serves again.",
    verb: "Reload",
    field: "Another model on that disk (empty: the same one)",
  },
  purge: { text: "It is unloaded, and its files are removed from the disk. The next load fetches them again.", verb: "Purge" },
};

class Page extends Component {
  constructor() {
    super();
    this.state = { question: null, notice: null };
    this.actions = {
      pool: (pool, action) => this.poolAction(pool, action),
      node: (node, action) => this.ask(action, `node ${node.node_id}`, () =>
        this.act(`${capital(action)} of node ${node.node_id}`, "POST", `v2/nodes/${encodeURIComponent(node.node_id)}/${action}`)),
      unfence: (gpu) => this.setState({
        question: {
          title: `End the fence of ${gpu.name}?`,
          text: "The GPU gets work again. Do so only if it is in order.",
          verb: "End the fence",
          onAnswer: () => this.act("End of the fence", "POST", `v2/gpus/${encodeURIComponent(gpu.uuid)}/unfence${onNode(gpu)}`),
        },
      }),
      cancelTask: (task) => this.act(`Cancel of task ${short(task.task_id)}`, "POST", `v2/tasks/${task.task_id}/cancel`),
      cancelOperation: (each) => this.act(`Cancel of ${each.kind}`, "DELETE", `v2/operations/${each.operation_id}`),
    };
  }

  poolAction(pool, action) {
    const path = `v2/pools/${pool.pool_id}/${action}${onNode(pool)}`;
    this.ask(action, `pool ${poolName(pool)}`, (text) => {
      const body = action === "reload" ? (text ? { new_model_ref: text } : {}) : undefined;
      this.act(`${QUESTIONS[action]?.verb ?? capital(action)} of ${poolName(pool)}`, "POST", path, body);
    });
  }

  // Do it, or ask first
  ask(action, target, answer) {
    const question = QUESTIONS[action];
    if (!question) return answer("");
    this.setState({ question: { ...question, title: `${question.verb} ${target}?`, onAnswer: answer } });
  }

  async act(label, method, path, body) {
    try {
      await send(method, path, body);
      this.notify(`${label}: accepted.`);
    } catch (error) {
      if (error.status === 401) this.props.state.tokenRefused(error);
      this.notify([`${label} failed: ${error.message}`, error.hint].filter(Boolean).join(" "), true);
    }
  }

  notify(text, bad = false) {
    this.setState({ notice: { text, bad } });
    clearTimeout(this.timer);
    if (!bad) this.timer = setTimeout(() => this.setState({ notice: null }), NOTICE_MS);
  }

  useToken(text) {
    setToken(text);
    this.props.state.connection = "connecting";
    this.props.state.retry();
    this.props.state.changed();
  }

  render({ state, history }, { question, notice }) {
    const { actions } = this;
    const close = () => this.setState({ question: null });
    return html`<${Head} state=${state} onForget=${() => {
        setToken("");
        state.tokenRefused(null);
      }} />
      <main>
        <div aria-live="polite">${notice && html`<p class=${notice.bad ? "notice bad" : "notice"}>${notice.text}
          <button aria-label="Close the message" onClick=${() => this.setState({ notice: null })}>✕</button></p>`}</div>
        <${Section} id="overview" title="Overview"><${Overview} state=${state} history=${history} /><//>
        <${Section} id="gpus" title="GPUs and memory"><${Gpus} state=${state} actions=${actions} /><//>
        <${Section} id="pools" title="Pools"><${Pools} state=${state} actions=${actions} /><//>
        <${Section} id="queue" title="Queue"><${Queue} state=${state} actions=${actions} /><//>
        <${Section} id="tasks" title="Tasks"><${Tasks} state=${state} actions=${actions} /><//>
        <${Section} id="chat" title="Chat">
          <${Chat} state=${state} onRefused=${(error) => state.tokenRefused(error)} /><//>
        <${Section} id="models" title="Models"><${Models} state=${state} /><//>
        <${Section} id="nodes" title="Nodes"><${Nodes} state=${state} actions=${actions} /><//>
        <${Section} id="journal" title="Journal"><${Journal} state=${state} /><//>
      </main>
      <footer><a href="docs/">Manual</a></footer>
      ${question && html`<${Question} ...${question} onClose=${close} onAnswer=${(text) => {
        close();
        question.onAnswer(text);
      }} />`}
      ${state.connection === "token" && html`<${TokenDialog} problem=${hasToken() && state.problem ? state.problem.message : ""}
        onToken=${(text) => this.useToken(text)} />`}`;
  }
}

const SECTIONS = ["Overview", "GPUs", "Pools", "Queue", "Tasks", "Chat", "Models", "Nodes", "Journal"];

function Head({ state, onForget }) {
  return html`<header>
    <h1>llama-orch <small>${state.hello.version}</small></h1>
    <p role="status" class=${`connection ${state.connection}`}>${connection(state)}</p>
    ${hasToken() && state.connection !== "token" && html`<button onClick=${onForget}>Forget the token</button>`}
    <nav aria-label="Sections">
      ${SECTIONS.map((name) => html`<a href=${`#${name.toLowerCase()}`}>${name}</a>`)}
    </nav>
  </header>`;
}

function connection(state) {
  const since = state.heardAt ? ` What is shown is of ${clock(state.heardAt)}.` : "";
  switch (state.connection) {
    case "live":
      return "Live";
    case "connecting":
      return "Connecting…";
    case "token":
      return `A token is needed.${since}`;
    case "refused":
      return `${state.problem.message}. ${state.problem.hint ?? ""}`;
    default:
      return `${state.problem?.message ?? "The connection is lost."} Trying again…${since}`;
  }
}

function Section({ id, title, children }) {
  return html`<section id=${id} aria-labelledby=${`${id}-title`}>
    <h2 id=${`${id}-title`}>${title}</h2>
    ${children}
  </section>`;
}

function onNode(each) {
  return each.node_id ? `?node_id=${encodeURIComponent(each.node_id)}` : "";
}

function capital(word) {
  return word === "preload" ? "Load" : word[0].toUpperCase() + word.slice(1);
}

let due = false;

// Draw at the next frame, however many changes come before it
function changed() {
  if (due) return;
  due = true;
  requestAnimationFrame(() => {
    due = false;
    draw();
  });
}

const state = new State(changed);
const history = new History();

function draw() {
  // once all modules are there, and not while the tab is hidden
  render(html`<${Page} state=${state} history=${history} />`, document.getElementById("page"));
}

setInterval(() => {
  if (state.connection === "live") history.take(state);
  changed();
}, 1000);
draw();
state.run();
