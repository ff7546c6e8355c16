"use strict";

const { setImmediate: turn } = require("node:timers/promises");
const { open } = require("lmdb");

/**
 * Stores each session as JSON by its id, without a user index or expiry index, and without a check for existing ids.
 */
class LmdbStore {
  getsAtOnce = true;

  constructor(path) {
    // `separateFlushed` only adds the promise that `create` waits for: the durability is the default one.
    this.db = open({ path, encoding: "string", separateFlushed: true });
  }

  create(session) {
    return this.db.put(session.sessionId, JSON.stringify(session)).flushed;
  }

  async get(sessionId) {
    const text = this.db.get(sessionId);
    return text === undefined ? null : JSON.parse(text);
  }

  async fill(sessions) {
    this.db.transactionSync(() => {
      for (const session of sessions) this.db.put(session.sessionId, JSON.stringify(session));
    });
    await this.db.flushed;
  }

  async remove(ids) {
    for (const id of ids) this.db.remove(id);
    await this.db.flushed;
  }

  /** Reads each session, because there is no expiry index. Yields to the event loop after `atATime` sessions. */
  async clean(atATime = Number.POSITIVE_INFINITY) {
    const now = Date.now();
    let looked = 0;
    for (const { key, value } of this.db.getRange()) {
      if (Date.parse(JSON.parse(value).expires) <= now) this.db.remove(key);
      if (++looked % atATime === 0) await turn();
    }
    await this.db.flushed;
  }

  async countLeft(ids) {
    let left = 0;
    for (const id of ids) if ((await this.get(id)) !== null) left++;
    return left;
  }

  close() {
    return this.db.close();
  }
}

module.exports = LmdbStore;
