"use strict";

const { readServers } = require("../../redis-servers.js");
const { wrongUsage } = require("../failures.js");
const show = require("../show.js");
const { ConnectSessions } = require("./connect-sessions.js");
const { entryOf } = require("./fault.js");
const { findRedisClient } = require("./redis-client.js");
const { readServerUrl } = require("./server-url.js");
const { endOfEndless, readTtl } = require("./ttl.js");

// The default of connect-redis.
const DEFAULT_PREFIX = "sess:";
const DEFAULT_TTL = 86_400_000;

const ACCEPTED = {
  schemes: ["redis", "rediss", "valkey", "valkeys"],
  example: "redis://127.0.0.1:6379/0",
};
// Keys per step. Few, because a session may be large.
const PAGE = 100;
// Special results of PTTL.
const [NO_TTL, NO_KEY] = [-1, -2];

/** Opens the keys of connect-redis, one for each session. */
async function open(task) {
  const { options } = task;
  const sessions = new ConnectSessions(options);
  const ttl = readTtl(options);
  const prefix = options["from-prefix"] ?? DEFAULT_PREFIX;
  const nodes = await connect(task, readServerUrl(task, ACCEPTED));
  const unit = (keys) => show.count(keys, "key");
  return { noun: "key", unit, entries: entriesOf() };

  async function* entriesOf() {
    let done = 0;
    for await (const { key, value, ttlLeft, readAt } of valuesOf(nodes, prefix)) {
      const endOf = ({ cookie }) =>
        ttlLeft === NO_TTL ? endOfEndless(cookie, ttl, DEFAULT_TTL) : readAt + ttlLeft;
      // For connect-redis an empty string is not a session. Without a key, the session has just ended.
      const isSession = value !== "" && value !== null && ttlLeft !== NO_KEY;
      const entry = await entryOf(`key ${show.shortId(key)}`, () =>
        isSession ? sessions.read(key.slice(prefix.length), value, endOf) : {},
      );
      yield { ...entry, read: ++done };
    }
  }
}

async function* valuesOf(nodes, prefix) {
  for (const node of nodes) {
    for await (const keys of node.keys(prefix)) yield* await node.read(keys);
  }
}

/** One Redis server, and its own keys. */
class Node {
  #call;
  #attempt;

  /** @param {(work: Promise) => Promise} attempt Wraps each request to Redis. */
  constructor(call, attempt) {
    this.#call = call;
    this.#attempt = attempt;
  }

  /** Iterates over the keys with a prefix, in pages. A key may occur twice. */
  async *keys(prefix) {
    const pattern = `${prefix.replace(/[\\*?[\]]/g, "\\$&")}*`;
    let cursor = "0";
    do {
      const words = ["SCAN", cursor, "MATCH", pattern, "COUNT", String(PAGE)];
      const [next, keys] = await this.#attempt(this.#call(words));
      if (keys.length > 0) yield keys;
      cursor = String(next);
    } while (cursor !== "0");
  }

  /** Reads keys: `{ key, value, ttlLeft, readAt }`. `value` is missing if it is not a string. */
  read(keys) {
    const readAt = Date.now();
    const readOne = async (key) => {
      const [value, ttlLeft] = await Promise.all([this.#get(key), this.#call(["PTTL", key])]);
      return { key, value, ttlLeft, readAt };
    };
    return this.#attempt(Promise.all(keys.map(readOne)));
  }

  async #get(key) {
    try {
      return await this.#call(["GET", key]);
    } catch (error) {
      if (/^WRONGTYPE/.test(error.message)) return undefined;
      throw error;
    }
  }

  /** Returns the primaries of this node's cluster, or `null` if it is not in a cluster. */
  async primaries({ host, ...login }) {
    let slots;
    try {
      slots = await this.#attempt(this.#call(["CLUSTER", "SLOTS"]));
    } catch (error) {
      // Some proxies and managed servers do not have the command.
      if (/cluster support disabled|unknown (sub)?command/i.test(error.message)) return null;
      throw error;
    }
    // A node may omit its own host.
    const places = slots.map(([, , [name, port]]) => ({ ...login, host: name || host, port }));
    return [...new Map(places.map((place) => [`${place.host}:${place.port}`, place])).values()];
  }
}

/** Connects to the server, or to all primaries of its cluster. */
async function connect(task, url) {
  const place = readPlace(url);
  const startClient = findRedisClient();
  const attempt = (work) => url.attempt(work);
  const first = await connectTo(place);
  const primaries = await first.primaries(place);
  return primaries === null ? [first] : Promise.all(primaries.map(connectTo));

  async function connectTo(server) {
    const { connected, call, close } = startClient(server);
    task.defer(close);
    await attempt(connected);
    return new Node(call, attempt);
  }
}

function readPlace({ url }) {
  try {
    return readServers({ url }).servers[0];
  } catch (error) {
    throw wrongUsage(error.message.replace(/^url /, "the URL of the old store "));
  }
}

module.exports = { reads: "url", options: ["from-prefix", "ttl"], open };
