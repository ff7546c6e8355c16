"use strict";

const session = require("express-session");
const { RedisStore } = require("../..");
const { ConnectStore } = require("../../connect.js");
const { farOff } = require("../sessions.js");
const { change, expressSession, nativeSession } = require("./sessions.js");

/** A store of express-session, called like express-session does: with the loaded session of a request. */
class ExpressPeer {
  #store;
  #sessions = new Map();
  #close;

  constructor(store, close) {
    this.#store = store;
    this.#close = close;
    // Lets express-session set up the store.
    session({ store, secret: "of nothing", resave: false, saveUninitialized: false });
  }

  async fill(sessionId, number) {
    this.#sessions.set(number, expressSession(number));
    await this.set(sessionId, number);
    const loaded = await new Promise((resolve, reject) => {
      this.#store.load(sessionId, (error, session) => (error ? reject(error) : resolve(session)));
    });
    this.#sessions.set(number, loaded);
  }

  get(sessionId) {
    return new Promise((resolve, reject) => {
      this.#store.get(sessionId, (error, session) => (error ? reject(error) : resolve(session ?? null)));
    });
  }

  set(sessionId, number) {
    const session = change(this.#sessions.get(number));
    return new Promise((resolve, reject) => {
      const done = (error) => (error ? reject(error) : resolve());
      this.#store.set(sessionId, session, done);
    });
  }

  touch(sessionId, number) {
    const session = this.#sessions.get(number);
    session.touch();
    return new Promise((resolve, reject) => {
      const done = (error) => (error ? reject(error) : resolve());
      this.#store.touch(sessionId, session, done);
    });
  }

  close() {
    return this.#close();
  }
}

// Touches stay within ten minutes. Millions of them, a millisecond apart, would prolong the user indexes all the time.
const TOUCH_RANGE = 600_000;

/** Our store, called directly, or like FluidAuth does. */
class NativePeer {
  #touches = 0;
  #store;
  #sessions = new Map();

  constructor(store) {
    this.#store = store;
  }

  fill(sessionId, number) {
    const session = nativeSession(sessionId, number);
    this.#sessions.set(number, session);
    return this.#store.create(session);
  }

  get(sessionId) {
    return this.#store.get(sessionId);
  }

  set(sessionId, number) {
    return this.#store.update(sessionId, change(this.#sessions.get(number)));
  }

  touch(sessionId) {
    return this.#store.touch(sessionId, farOff(this.#touches++ % TOUCH_RANGE));
  }

  close() {
    return this.#store.close();
  }
}

const prefixOf = (name) => `${name}:`;
const newStore = ({ urls, ca, isCluster }, name) =>
  new RedisStore({
    ...(isCluster ? { cluster: urls } : { url: urls[0] }),
    ...(ca && { tls: { ca } }),
    prefix: prefixOf(name),
    sweepInterval: 0,
  });

function nodeRedisClient({ urls, ca, isCluster }) {
  const { createClient, createCluster } = require("redis");
  if (isCluster) return createCluster({ rootNodes: urls.map((url) => ({ url })) });
  return createClient({ url: urls[0], ...(ca && { socket: { tls: true, ca } }) });
}

function ioredisClient({ urls, ca, isCluster }) {
  const { Cluster, Redis } = require("ioredis");
  return isCluster ? new Cluster(urls) : new Redis(urls[0], ca ? { tls: { ca } } : {});
}

/** Stores of express-session: how to open and close each. */
const EXPRESS = {
  connect: (servers) => {
    const store = new ConnectStore(newStore(servers, "connect"));
    return { store, close: () => store.close() };
  },
  nodeRedis: async (servers) => {
    const client = nodeRedisClient(servers);
    await client.connect();
    const store = new (require("connect-redis").RedisStore)({ client, prefix: prefixOf("nodeRedis") });
    return { store, close: () => client.close() };
  },
  ioredis: (servers) => {
    const client = ioredisClient(servers);
    const store = new (require("connect-redis-8").RedisStore)({ client, prefix: prefixOf("ioredis") });
    return { store, close: () => client.quit() };
  },
};

const openExpress = async (name, servers) => EXPRESS[name](servers);

async function openExpressPeer(name, servers) {
  const { store, close } = await openExpress(name, servers);
  return new ExpressPeer(store, close);
}

/** The compared stores, ours first. Each process loads only the packages that it needs. */
const STORES = {
  connect: {
    label: "ours, ConnectStore",
    open: (servers) => openExpressPeer("connect", servers),
  },
  native: {
    label: "ours, RedisStore itself",
    open: async (servers) => new NativePeer(newStore(servers, "native")),
  },
  nodeRedis: {
    label: "connect-redis, node-redis",
    package: "connect-redis",
    open: (servers) => openExpressPeer("nodeRedis", servers),
  },
  ioredis: {
    label: "connect-redis, ioredis",
    package: "connect-redis-8",
    open: (servers) => openExpressPeer("ioredis", servers),
  },
};

/** Code that fails if a package is missing. */
const TRIALS = {
  "connect-redis": 'require("redis"); require("connect-redis")',
  // The last version that supports ioredis.
  "connect-redis-8": 'require("ioredis"); require("connect-redis-8")',
};

const NAMES = Object.keys(STORES);
const OURS = ["connect", "native"];
const OF_EXPRESS = Object.keys(EXPRESS);
const labelOf = (name) => STORES[name].label;
const openStore = (name, servers) => STORES[name].open(servers);

module.exports = { NAMES, OF_EXPRESS, OURS, STORES, TRIALS, labelOf, openExpress, openStore };
