"use strict";

const { setTimeout: sleep } = require("node:timers/promises");
const { closedLoop } = require("../../closed-loop.js");

const THIS_PACKAGE = "../../..";
const IN_FLIGHT = 4096;
/** Milliseconds. An idle log is drained within half a minute. */
const LONGEST_DRAIN = 60_000;
const LOOK = 20;

/** Our FileStore, from this package or an older version. */
class NativeStore {
  static load = (from = THIS_PACKAGE) => require(from).FileStore;

  getsAtOnce = true;

  constructor(directory, { from, ...options } = {}) {
    const FileStore = NativeStore.load(from);
    this.store = new FileStore({ path: directory, sweepInterval: 0, ...options });
  }

  create(session) {
    return this.store.create(session);
  }

  get(sessionId) {
    return this.store.get(sessionId);
  }

  touch(sessionId, millis) {
    return this.store.touch(sessionId, millis);
  }

  fill(sessions) {
    return closedLoop(IN_FLIGHT, sessions, (session) => this.store.create(session));
  }

  remove(ids) {
    return closedLoop(IN_FLIGHT, ids, (id) => this.store.delete(id));
  }

  clean() {
    return this.store.clean();
  }

  /** Uses the counter, because `get` never returns an expired session, swept or not. */
  async countLeft(ids) {
    return ids.length - (await this.store.stats()).expired;
  }

  /** Returns the bytes of the log that are not in the data file yet, or `undefined` without a log. */
  async logBytes() {
    return (await this.store.stats()).log?.usedBytes;
  }

  /** Empties the log, if there is one. */
  async drain() {
    const end = performance.now() + LONGEST_DRAIN;
    while ((await this.logBytes()) > 0) {
      // `ids` reads the data file, so the log is drained first.
      for await (const _ of this.store.ids()) break;
      if (performance.now() > end) throw new Error(`the log was not drained within ${LONGEST_DRAIN} ms`);
      await sleep(LOOK);
    }
  }

  close() {
    return this.store.close();
  }
}

module.exports = NativeStore;
