"use strict";

const { setImmediate } = require("node:timers/promises");
const { EXIT, Failure } = require("./failures.js");
const show = require("./show.js");

const TURN = 1000;

/** The live sessions of a store one after the other, those that cannot be read left out and counted. */
class LiveSessions {
  #store;
  #task;
  #unreadable = 0;

  #hint;

  constructor(store, task) {
    this.#store = store;
    // What is in Redis there is nothing to verify of.
    this.#hint = store.verify ? ": try native-store verify" : "";
    this.#task = task;
  }

  async *[Symbol.asyncIterator]() {
    let seen = 0;
    for await (const id of this.#store.ids()) {
      // Reads resolve without a turn of the event loop, and a signal needs one.
      if (++seen % TURN === 0) await setImmediate();
      this.#task.throwIfInterrupted();
      const session = await this.#get(id);
      if (session !== null) yield session;
    }
  }

  async #get(id) {
    try {
      return await this.#store.get(id);
    } catch (error) {
      if (error.code !== "ERR_STORE_CORRUPT") throw error;
      this.#unreadable++;
      return null;
    }
  }

  throwIfAnyUnreadable() {
    if (this.#unreadable === 0) return;
    const sessions = show.count(this.#unreadable, "session");
    throw new Failure(EXIT.no, `left out ${sessions} that could not be read${this.#hint}`);
  }
}

module.exports = { LiveSessions };
