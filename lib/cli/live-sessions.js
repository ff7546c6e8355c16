"use strict";

const { isDeepStrictEqual } = require("node:util");
const { EXIT, Failure } = require("./failures.js");
const show = require("./show.js");

/** Iterates over `store.sessions()`. Skips and counts unreadable sessions. */
class LiveSessions {
  #store;
  #task;
  #user;
  #unreadable = 0;

  /** @param {{ userId: unknown }} [user] Only the sessions of this user. Default: all sessions. */
  constructor(store, task, user) {
    this.#store = store;
    this.#task = task;
    this.#user = user;
  }

  async *[Symbol.asyncIterator]() {
    try {
      yield* this.#each(this.#user);
    } catch (error) {
      if (this.#user === undefined || !isUnreadable(error)) throw error;
      yield* this.#ofUserAmongAll();
    }
  }

  throwIfAnyUnreadable() {
    if (this.#unreadable === 0) return;
    // A RedisStore has no `verify`.
    const hint = this.#store.verify ? ": try native-store verify" : "";
    const sessions = show.count(this.#unreadable, "session");
    throw new Failure(EXIT.no, `left out ${sessions} that could not be read${hint}`);
  }

  /**
   * Finds the sessions of the user among all. `sessions({ userId })` of a `FileStore` yields nothing if one is
   * unreadable.
   */
  async *#ofUserAmongAll() {
    const userId = JSON.parse(JSON.stringify(this.#user.userId));
    for await (const entry of this.#each()) {
      if (isDeepStrictEqual(entry.session.userId, userId)) yield entry;
    }
  }

  async *#each(user) {
    try {
      for await (const entry of this.#store.sessions(user)) {
        this.#task.throwIfInterrupted();
        yield entry;
      }
    } catch (error) {
      if (error.unreadable === undefined) throw error;
      this.#unreadable = error.unreadable;
    }
  }
}

const isUnreadable = (error) => error.code === "ERR_STORE_CORRUPT";

module.exports = { LiveSessions };
