"use strict";

const expressSession = require("express-session");
const createMemorystore = require("memorystore");
const { MemoryStore } = require("..");
const { ConnectStore } = require("../connect.js");
const { MapStore } = require("./map-store.js");

const isoText = (millis) => new Date(millis).toISOString();

/** Returns a session in FluidAuth's shape, with the fields of an app if there are any. */
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

  /** FluidAuth has no touch. An async method of its `Session` does the same. */
  async touch(sessionId, millis) {
    const session = await this.store.get(sessionId);
    session.expires = isoText(millis);
    await this.store.update(sessionId, session);
  }
}

/** A store of express-session, whose methods take a callback. */
class ExpressPeer {
  // One cookie for all sessions: the stores keep its JSON text, and making a cookie is not part of the measurement.
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

  /** For these stores an update is the same as a create. */
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
 * The compared stores, ours first. They have `create`, `get`, `update`, `touch` and `delete` with the same arguments.
 * `isSlow`: the store answers by `setImmediate`.
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
