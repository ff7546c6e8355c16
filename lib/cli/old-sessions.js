"use strict";

const { LiveSessions } = require("./live-sessions.js");
const show = require("./show.js");

// Deletes that are under way at once.
const AT_ONCE = 256;

/** The live sessions that were created before a time. */
class OldSessions {
  #store;
  #task;
  #sessions;
  #before;
  #except;

  /** @param {{ before: number, except?: string, user?: { userId: unknown } }} which */
  constructor(store, task, { before, except, user }) {
    this.#store = store;
    this.#task = task;
    this.#sessions = new LiveSessions(store, task, user);
    this.#before = before;
    this.#except = except;
  }

  async count() {
    let count = 0;
    for await (const _ of this.#each()) count++;
    return count;
  }

  /** Ends them, and resolves to how many. */
  async end() {
    let [ended, undated] = [0, 0];
    let deletes = [];
    for await (const { session, createdAt } of this.#each()) {
      ended++;
      if (createdAt === null) undated++;
      if (deletes.push(this.#store.delete(session.sessionId)) < AT_ONCE) continue;
      await Promise.all(deletes);
      deletes = [];
    }
    await Promise.all(deletes);
    if (undated > 0) {
      this.#task.note(
        `${show.count(undated, "session")} of them have no time of creation: an older version created them`,
      );
    }
    return ended;
  }

  throwIfAnyUnreadable() {
    this.#sessions.throwIfAnyUnreadable();
  }

  /** A session whose creation nobody knows is one of an older version of this package. */
  async *#each() {
    for await (const entry of this.#sessions) {
      const { session, createdAt } = entry;
      if (session.sessionId !== this.#except && (createdAt === null || createdAt < this.#before)) yield entry;
    }
  }
}

module.exports = { OldSessions };
