"use strict";

/** The same as FluidAuth's own `MemoryStore`: a `Map` of references, which reads `expires` only in `clean`. */
class MapStore {
  db = new Map();

  async create(session) {
    if (this.db.has(session.sessionId)) throw new Error("Session already exists");
    this.db.set(session.sessionId, session);
  }

  async get(sessionId) {
    return this.db.get(sessionId) ?? null;
  }

  async update(sessionId, session) {
    this.db.set(sessionId, session);
  }

  async delete(sessionId) {
    this.db.delete(sessionId);
  }

  async clean() {
    const now = Date.now();
    for (const [sessionId, { expires }] of this.db) {
      const millis = new Date(expires).getTime();
      if (Number.isNaN(millis) || millis <= now) this.db.delete(sessionId);
    }
  }
}

module.exports = { MapStore };
