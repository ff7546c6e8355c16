"use strict";

const expressSession = require("express-session");
const createMemorystore = require("memorystore");
const { MemoryStore } = require("..");

const isoText = (millis) => new Date(millis).toISOString();

/** What FluidAuth's own `MemoryStore` does: a `Map` of references, with no look at `expires` but in `clean`. */
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

class NativePeer {
  constructor(options) {
    this.store = new MemoryStore(options);
  }

  create(sessionId, userId, millis) {
    return this.store.create({ sessionId, userId, expires: isoText(millis) });
  }

  get(sessionId) {
    return this.store.get(sessionId);
  }

  touch(sessionId, millis) {
    return this.store.touch(sessionId, new Date(millis));
  }

  delete(sessionId) {
    return this.store.delete(sessionId);
  }

  clean() {
    return this.store.clean();
  }

  async countSwept() {
    return (await this.store.stats()).expired;
  }
}

class MapPeer {
  store = new MapStore();

  create(sessionId, userId, millis) {
    return this.store.create({ sessionId, userId, expires: isoText(millis) });
  }

  get(sessionId) {
    return this.store.get(sessionId);
  }

  /** FluidAuth has no touch: an async method of its `Session` does this. */
  async touch(sessionId, millis) {
    const session = await this.store.get(sessionId);
    session.expires = isoText(millis);
    await this.store.update(sessionId, session);
  }

  delete(sessionId) {
    return this.store.delete(sessionId);
  }

  clean() {
    return this.store.clean();
  }
}

/** A store of express-session, whose methods take a callback. */
class ExpressPeer {
  isSlow = true;
  // One for all sessions: the stores keep its JSON text, and an app would not count what making it takes.
  cookie = new expressSession.Cookie();

  constructor(store) {
    this.store = store;
  }

  create(sessionId, userId, millis) {
    this.cookie.expires = new Date(millis);
    return new Promise((resolve, reject) => {
      const done = (error) => (error ? reject(error) : resolve());
      this.store.set(sessionId, { cookie: this.cookie, userId }, done);
    });
  }

  get(sessionId) {
    return new Promise((resolve, reject) => {
      this.store.get(sessionId, (error, session) => (error ? reject(error) : resolve(session ?? null)));
    });
  }

  touch(sessionId, millis) {
    this.cookie.expires = new Date(millis);
    return new Promise((resolve, reject) => {
      const done = (error) => (error ? reject(error) : resolve());
      this.store.touch(sessionId, { cookie: this.cookie }, done);
    });
  }

  delete(sessionId) {
    return new Promise((resolve, reject) => {
      this.store.destroy(sessionId, (error) => (error ? reject(error) : resolve()));
    });
  }

  async clean() {
    this.store.prune();
  }
}

const Memorystore = createMemorystore(expressSession);

/** The stores that are compared, ours first. Each has `create`, `get`, `touch` and `delete` of the same arguments. */
const PEERS = {
  native: { label: "native-store", open: (options) => new NativePeer(options) },
  map: { label: "FluidAuth-like Map", open: () => new MapPeer() },
  express: {
    label: "express-session",
    open: () => new ExpressPeer(new expressSession.MemoryStore()),
  },
  memorystore: { label: "memorystore", open: () => new ExpressPeer(new Memorystore()) },
};

const OURS = "native";
const NAMES = Object.keys(PEERS);
const OTHERS = NAMES.filter((name) => name !== OURS);
const labelOf = (name) => PEERS[name].label;
const openPeer = (name, options) => PEERS[name].open(options);

module.exports = { OURS, OTHERS, NAMES, labelOf, openPeer };
