// A conversation, to try a model. It is kept in this page only.

import { eventsOf, send } from "./api.js";
import { poolName } from "./format.js";
import { Component, createRef, html } from "./html.js";

export class Chat extends Component {
  log = createRef();

  constructor() {
    super();
    this.state = { messages: [], busy: false, problem: null, draft: "" };
  }

  componentDidUpdate() {
    if (this.state.busy) this.log.current.scrollTop = this.log.current.scrollHeight;
  }

  render({ state }, { messages, busy, problem, draft }) {
    const pools = [...new Set(state.all("pools").filter(chats).map((pool) => pool.pool_id))].slice(0, 500);
    return html`<div class="messages" role="log" aria-label="Conversation" tabindex="0" ref=${this.log}>
        ${messages.length === 0 && html`<p class="empty">Nothing said yet.</p>`}
        ${messages.map(({ role, content }) => html`<div class=${`message ${role}`}>
          <strong>${role === "user" ? "You" : "Model"}</strong><p>${content || "…"}</p></div>`)}
      </div>
      ${problem && html`<p class="bad" role="alert">${problem}</p>`}
      <form class="chat" onSubmit=${(event) => this.submit(event)}>
        <label>Model <select name="model">
          ${pools.map((name) => html`<option key=${name} value=${name}>${name}</option>`)}
        </select></label>
        <label>Longest answer, in tokens <input name="length" type="number" min="1" max="100000" value="256" /></label>
        <label class="wide">Message <textarea name="text" rows="3" value=${draft} required
          onInput=${(event) => this.setState({ draft: event.target.value })}
          onKeyDown=${(event) => sendsOnEnter(event)}></textarea></label>
        <div class="buttons">
          <button type="submit" class="strong" disabled=${busy || pools.length === 0}>Send</button>
          <button type="button" disabled=${!busy} onClick=${() => this.stop.abort()}>Stop</button>
          <button type="button" disabled=${busy || messages.length === 0}
            onClick=${() => this.setState({ messages: [], problem: null })}>Clear</button>
        </div>
      </form>`;
  }

  async submit(event) {
    event.preventDefault();
    const { model, length, text } = event.target.elements;
    const said = [...this.state.messages, { role: "user", content: text.value }];
    const body = {
      model: model.value,
      messages: said,
      max_tokens: Number(length.value) || 256,
      stream: true,
    };
    this.stop = new AbortController();
    this.setState({ messages: [...said, { role: "assistant", content: "" }], busy: true, problem: null, draft: "" });
    try {
      const answer = await send("POST", "v1/chat/completions", body, this.stop.signal);
      for await (const { data } of eventsOf(answer)) {
        if (data === "[DONE]") break;
        this.add(JSON.parse(data));
      }
      this.setState({ busy: false });
    } catch (error) {
      this.fail(error, text.value ? null : said.at(-1).content);
    }
  }

  add(data) {
    if (data.error) throw new Error(data.error.message);
    const piece = data.choices?.[0]?.delta?.content;
    if (!piece) return;
    this.setState(({ messages }) => {
      const last = messages.at(-1);
      return { messages: [...messages.slice(0, -1), { ...last, content: last.content + piece }] };
    });
  }

  // What was asked and not answered goes back into the field
  fail(error, draft) {
    this.setState(({ messages }) => {
      const unanswered = messages.at(-1)?.content === "";
      return {
        busy: false,
        problem: error.name === "AbortError" ? null : [error.message, error.hint].filter(Boolean).join(" "),
        messages: unanswered ? messages.slice(0, -2) : messages,
        ...(unanswered && draft !== null ? { draft } : {}),
      };
    });
    if (error.status === 401) this.props.onRefused(error);
  }
}

function chats(pool) {
  return pool.ready || pool.residency !== null;
}

function sendsOnEnter(event) {
  if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
    event.preventDefault();
    event.target.form.requestSubmit();
  }
}
