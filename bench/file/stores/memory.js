"use strict";

const { MemoryStore } = require("../../..");
const { closedLoop } = require("../../closed-loop.js");

const IN_FLIGHT = 4096;

/** Our MemoryStore, which shows the cost of a write without a disk. Each process fills its own. */
class Memory {
  getsAtOnce = true;
  startsEmpty = true;
  store = new MemoryStore({ sweepInterval: 0 });

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

  close() {
    return this.store.close();
  }
}

module.exports = Memory;
