"use strict";

const { FileStore } = require("../../..");
const { closedLoop } = require("../../closed-loop.js");

const IN_FLIGHT = 4096;

class NativeStore {
  getsAtOnce = true;

  constructor(directory) {
    this.store = new FileStore({ path: directory, sweepInterval: 0 });
  }

  create(session) {
    return this.store.create(session);
  }

  get(sessionId) {
    return this.store.get(sessionId);
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

  /** By its counter, as `get` finds no expired session, swept or not. */
  async countLeft(ids) {
    return ids.length - (await this.store.stats()).expired;
  }

  close() {
    return this.store.close();
  }
}

module.exports = NativeStore;
