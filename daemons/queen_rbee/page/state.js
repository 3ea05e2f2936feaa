// What the queen streams from v2/events, and whether it still does.

import { eventsOf, Problem, send } from "./api.js";

const SILENCE_MS = 40000; // the queen sends a comment at least every 15 s
const FIRST_RETRY_MS = 500;
const LONGEST_RETRY_MS = 10000;

const EMPTY = ["queen", "nodes", "gpus", "memory", "pools", "tasks", "operations", "models", "journal"];

export class State {
  // `changed` is called after every change
  constructor(changed) {
    this.changed = changed;
    this.sections = Object.fromEntries(EMPTY.map((name) => [name, new Map()]));
    this.hello = { version: "", profile: "", pool_actions: [], node_actions: [] };
    this.connection = "connecting"; // or live, lost, token, refused
    this.problem = null;
    this.heardAt = null; // when the last change came, by this browser's clock
    this.skewMs = 0; // the queen's clock minus this browser's
    this.loaded = false;
    this.wake = () => {};
  }

  get queen() {
    return this.sections.queen.get("queen");
  }

  all(section) {
    return [...this.sections[section].values()];
  }

  // Milliseconds since a time of the queen's clock
  age(time) {
    return Math.max(0, Date.now() + this.skewMs - Date.parse(time));
  }

  async run() {
    for (let wait = FIRST_RETRY_MS; ; wait = Math.min(2 * wait, LONGEST_RETRY_MS)) {
      const began = Date.now();
      await this.follow();
      if (Date.now() - began > LONGEST_RETRY_MS) wait = FIRST_RETRY_MS;
      this.changed();
      const patient = this.connection === "token";
      await Promise.race([
        new Promise((resolve) => (this.wake = resolve)),
        ...(patient ? [] : [new Promise((resolve) => setTimeout(resolve, wait))]),
      ]);
    }
  }

  // Try again at once, for example with another token
  retry() {
    if (this.connection === "live") this.abort?.();
    else this.wake();
  }

  // A request was refused for its token: so is the stream, as soon as it begins anew
  tokenRefused(problem) {
    this.problem = problem;
    this.connection = "token";
    this.abort?.();
    this.changed();
  }

  async follow() {
    const control = new AbortController();
    this.abort = () => control.abort();
    let watchdog;
    const heard = () => {
      clearTimeout(watchdog);
      watchdog = setTimeout(() => control.abort(), SILENCE_MS);
    };
    try {
      heard();
      const answer = await send("GET", "v2/events", undefined, control.signal);
      for await (const { event, data } of eventsOf(answer, heard)) this.take(event, JSON.parse(data));
      this.lose(null);
    } catch (error) {
      this.lose(error);
    } finally {
      clearTimeout(watchdog);
      this.abort = null;
    }
  }

  lose(error) {
    const status = error instanceof Problem ? error.status : 0;
    if (this.connection !== "token") {
      this.connection = status === 401 ? "token" : status === 403 ? "refused" : "lost";
      this.problem = status ? error : null;
    }
  }

  take(event, data) {
    if (event === "hello") {
      this.hello = data;
      this.skewMs = Date.parse(data.at) - Date.now();
      this.fresh = Object.fromEntries(EMPTY.map((name) => [name, new Map()]));
    } else if (event === "ready") {
      this.sections = this.fresh;
      this.connection = "live";
      this.problem = null;
      this.loaded = true;
    } else if (this.fresh[event]) {
      const section = this.fresh[event];
      for (const key of data.gone) section.delete(key);
      for (const [key, document] of Object.entries(data.set)) section.set(key, document);
    }
    this.heardAt = Date.now();
    this.changed();
  }
}
