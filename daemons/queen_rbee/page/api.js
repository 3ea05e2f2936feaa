// Requests to the queen. The token lives in this module only: nothing stores it, and reloading the page forgets it.

let token = "";

export function setToken(text) {
  token = text;
}

export function hasToken() {
  return token !== "";
}

// What the queen answered instead of what was asked for. `status` is 0 if it did not answer.
export class Problem extends Error {
  constructor(status, message, hint) {
    super(message);
    this.status = status;
    this.hint = hint;
  }
}

// Return the response if its status is a success. Throws Problem, and AbortError if `signal` is aborted.
export async function send(method, path, body, signal) {
  const headers = token ? { authorization: `Bearer ${token}` } : {};
  if (body !== undefined) headers["content-type"] = "application/json";
  const options = { method, headers, signal, cache: "no-store", credentials: "omit" };
  if (body !== undefined) options.body = JSON.stringify(body);
  let answer;
  try {
    answer = await fetch(path, options);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Problem(0, "The queen does not answer.", "Check the connection, and systemctl status queen-rbee.");
  }
  if (answer.ok) return answer;
  throw await problemOf(answer);
}

async function problemOf(answer) {
  try {
    const body = await answer.json();
    const error = body.error ?? body; // the paths below /v1 answer in OpenAI's format
    const fields = (error.fields ?? []).map((each) => `${each.field} ${each.problem}`).join("; ");
    const message = fields ? `${error.message}: ${fields}` : error.message;
    return new Problem(answer.status, message ?? `Status ${answer.status}.`, error.hint);
  } catch {
    return new Problem(answer.status, `Status ${answer.status}.`);
  }
}

// Yield {event, data} of a stream of server-sent events. `onBytes` is called whenever something arrives.
export async function* eventsOf(answer, onBytes = () => {}) {
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      onBytes();
      const blocks = (rest + value).split(/\r?\n\r?\n/);
      rest = blocks.pop();
      for (const block of blocks) {
        const found = parsed(block);
        if (found) yield found;
      }
    }
  } finally {
    reader.cancel().catch(() => {});
  }
}

function parsed(block) {
  const found = { event: "message", data: "" };
  for (const line of block.split(/\r?\n/)) {
    if (line.startsWith("event:")) found.event = line.slice(6).trim();
    else if (line.startsWith("data:")) found.data += line.slice(5).trimStart();
  }
  return found.data ? found : null;
}
