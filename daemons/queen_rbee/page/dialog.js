// Modal dialogs. The browser's own: it keeps the focus inside, and Escape closes it.

import { Component, createRef, html } from "./html.js";

// `onClose` is called when it is closed without an answer; without it, it cannot be.
export class Dialog extends Component {
  element = createRef();

  componentDidMount() {
    this.element.current.showModal();
  }

  render({ title, onClose, children }) {
    const cancel = (event) => {
      event.preventDefault();
      onClose?.();
    };
    return html`<dialog ref=${this.element} onCancel=${cancel} aria-labelledby="dialog-title">
      <h2 id="dialog-title">${title}</h2>
      ${children}
    </dialog>`;
  }
}

// Ask before something that cannot be undone. With a `field`, its label, the answer is its text.
export class Question extends Component {
  render({ title, text, verb, field, onAnswer, onClose }) {
    const answer = (event) => {
      event.preventDefault();
      const text = event.target.elements.text;
      onAnswer(text ? text.value.trim() : "");
    };
    return html`<${Dialog} title=${title} onClose=${onClose}>
      <p>${text}</p>
      <form onSubmit=${answer}>
        ${field && html`<label>${field} <input name="text" autocomplete="off" spellcheck=${false} /></label>`}
        <div class="buttons">
          <button type="button" onClick=${onClose}>Cancel</button>
          <button type="submit" class="strong">${verb}</button>
        </div>
      </form>
    <//>`;
  }
}

export class TokenDialog extends Component {
  render({ problem, onToken }) {
    const submit = (event) => {
      event.preventDefault();
      const field = event.target.elements.token;
      onToken(field.value.trim());
      field.value = "";
    };
    return html`<${Dialog} title="Token">
      <p>This queen serves only who has its token (LLORCH_API_TOKEN). The page keeps it in memory only, until it is
        closed or reloaded.</p>
      ${problem && html`<p role="alert" class="bad">${problem}</p>`}
      <form onSubmit=${submit}>
        <label>Token <input name="token" type="password" autocomplete="off" required /></label>
        <div class="buttons"><button type="submit" class="strong">Use it</button></div>
      </form>
    <//>`;
  }
}
