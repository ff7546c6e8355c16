"use strict";

const expressSession = require("express-session");
const createMemorystore = require("memorystore");
const { MemoryStore } = require("..");
const { ConnectStore } = require("../connect.js");
const { MapStore } = require("./map-store.js");

const isoText = (millis) => new Date(millis).toISOString();

/** A session as FluidAuth makes it, and with the fields of an app where there are any. */
function sessionOf(sessionId, userId, millis, data) {
  const expires = isoText(millis);
  return data === undefined ? { sessionId, userId, expires } : { sessionId, userId, expires, ...data };
}

class FluidAuthPeer {
  constructor(store) {
    this.store = store;
  }

  create(sessionId, userId, millis, data) {
    return this.store.create(sessionOf(sessionId, userId, millis, data));
  }

  get(sessionId) {
    return this.store.get(sessionId);
  }

  update(sessionId, userId, millis, data) {
    return this.store.update(sessionId, sessionOf(sessionId, userId, millis, data));
  }

  delete(sessionId) {
    return this.store.delete(sessionId);
  }

  clean() {
    return this.store.clean();
  }
}

class NativePeer extends FluidAuthPeer {
  constructor(options) {
    super(new MemoryStore(options));
  }

  touch(sessionId, millis) {
    return this.store.touch(sessionId, new Date(millis));
  }

  async countSwept() {
    return (await this.store.stats()).expired;
  }
}

class MapPeer extends FluidAuthPeer {
  constructor() {
    super(new MapStore());
  }

  /** FluidAuth has no touch: an async method of its `Session` does this. */
  async touch(sessionId, millis) {
    const session = await this.store.get(sessionId);
    session.expires = isoText(millis);
    await this.store.update(sessionId, session);
  }
}

/** A store of express-session, whose methods take a callback. */
class ExpressPeer {
  // One for all sessions: the stores keep its JSON text, and an app would not count what making it takes.
  cookie = new expressSession.Cookie();

  constructor(store, { isSlow }) {
    this.store = store;
    this.isSlow = isSlow;
  }

  create(sessionId, userId, millis, data) {
    this.cookie.expires = new Date(millis);
    const session = data === undefined ? { cookie: this.cookie, userId } : { cookie: this.cookie, ...data };
    return new Promise((resolve, reject) => {
      const done = (error) => (error ? reject(error) : resolve());
      this.store.set(sessionId, session, done);
    });
  }

  get(sessionId) {
    return new Promise((resolve, reject) => {
      this.store.get(sessionId, (error, session) => (error ? reject(error) : resolve(session ?? null)));
    });
  }

  /** To these stores a change is what a new session is. */
  update(sessionId, userId, millis, data) {
    return this.create(sessionId, userId, millis, data);
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

/**
 * The stores that are compared, ours first. Each has `create`, `get`, `update`, `touch` and `delete` of the same
 * arguments; one that `isSlow` answers by `setImmediate`.
 */
const PEERS = {
  native: { label: "native-store", open: (options) => new NativePeer(options) },
  connect: {
    label: "native-store, ConnectStore",
    open: () => new ExpressPeer(new ConnectStore(new MemoryStore()), { isSlow: false }),
  },
  map: { label: "FluidAuth-like Map", open: () => new MapPeer() },
  express: {
    label: "express-session",
    open: () => new ExpressPeer(new expressSession.MemoryStore(), { isSlow: true }),
  },
  memorystore: { label: "memorystore", open: () => new ExpressPeer(new Memorystore(), { isSlow: true }) },
};

const OURS = "native";
const labelOf = (name) => PEERS[name].label;
const openPeer = (name, options) => PEERS[name].open(options);

module.exports = { OURS, labelOf, openPeer };
