"use strict";

const { EXIT, Failure } = require("./failures.js");
const show = require("./show.js");

/** What `store.sessions()` gives. The sessions that cannot be read are left out and counted. */
class LiveSessions {
  #store;
  #task;
  #options;
  #unreadable = 0;

  constructor(store, task, options) {
    this.#store = store;
    this.#task = task;
    this.#options = options;
  }

  async *[Symbol.asyncIterator]() {
    try {
      for await (const entry of this.#store.sessions(this.#options)) {
        this.#task.throwIfInterrupted();
        yield entry;
      }
    } catch (error) {
      if (error.unreadable === undefined) throw error;
      this.#unreadable = error.unreadable;
    }
  }

  throwIfAnyUnreadable() {
    if (this.#unreadable === 0) return;
    // What is in Redis there is nothing to verify of.
    const hint = this.#store.verify ? ": try native-store verify" : "";
    const sessions = show.count(this.#unreadable, "session");
    throw new Failure(EXIT.no, `left out ${sessions} that could not be read${hint}`);
  }
}

module.exports = { LiveSessions };
