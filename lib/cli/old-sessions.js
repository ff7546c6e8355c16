"use strict";

const { stoppedAfter } = require("./failures.js");
const { LiveSessions } = require("./live-sessions.js");
const show = require("./show.js");

// How many deletes run concurrently.
const MAX_CONCURRENT_DELETES = 256;

/** The live sessions that were created before a time. */
class OldSessions {
  #store;
  #task;
  #sessions;
  #before;
  #except;
  #ended = 0;
  #undated = 0;

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

  /** Ends them, and resolves to how many. The message of a failure says how many were ended. */
  async end() {
    try {
      await this.#endEach();
    } catch (error) {
      if (this.#ended === 0) throw error;
      throw stoppedAfter(error, `${show.count(this.#ended, "session")} ended`);
    }
    if (this.#undated > 0) {
      this.#task.note(
        `${show.count(this.#undated, "session")} of them have no time of creation: an older version created them`,
      );
    }
    return this.#ended;
  }

  throwIfAnyUnreadable() {
    this.#sessions.throwIfAnyUnreadable();
  }

  async #endEach() {
    let batch = [];
    for await (const { session, createdAt } of this.#each()) {
      if (batch.push({ id: session.sessionId, createdAt }) < MAX_CONCURRENT_DELETES) continue;
      await this.#endBatch(batch);
      batch = [];
    }
    await this.#endBatch(batch);
  }

  /** Counts the successful deletes, even if another one fails. */
  async #endBatch(batch) {
    const ends = await Promise.allSettled(batch.map(({ id }) => this.#store.delete(id)));
    for (const [at, { status }] of ends.entries()) {
      if (status === "rejected") continue;
      this.#ended++;
      if (batch[at].createdAt === null) this.#undated++;
    }
    const failed = ends.find(({ status }) => status === "rejected");
    if (failed) throw failed.reason;
  }

  /** A session without a creation time was stored by an older version, so it counts as old. */
  async *#each() {
    for await (const entry of this.#sessions) {
      const { session, createdAt } = entry;
      if (session.sessionId !== this.#except && (createdAt === null || createdAt < this.#before)) yield entry;
    }
  }
}

module.exports = { OldSessions };
