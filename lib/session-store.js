"use strict";

const { setImmediate } = require("node:timers/promises");
const { clockOffset } = require("./clock.js");
const { createAt } = require("./create-at.js");
const native = require("./native.js");
const { SessionStoreError, calledAt, fromNative, misuse } = require("./errors.js");
const { Events } = require("./events.js");
const { READY_TIMEOUT, describeProblem, pingTimeout, probe } = require("./health.js");
const { KIND, KINDS, now } = require("./metrics.js");
const { deleteByUserOptions, pingOptions, sessionsOptions, validateOptions } = require("./options.js");
const codec = require("./session-codec.js");

// Missing before Node.js 20.4.
const asyncDispose = Symbol.asyncDispose ?? Symbol.for("nodejs.asyncDispose");

/**
 * Methods for `ConnectStore`:
 * - `store[load](sessionId, read, given)`: `get`, which resolves to `read(reply, given)`. The reply is `null`, or a
 *   string for `decode` of `session-codec.js`. It ends with the stored JSON of the session.
 * - `store[createJson](json)`, `store[updateJson](sessionId, json)`: `create` and `update` of a session's JSON text.
 *   The latter resolves to whether the session was live.
 * - `store[prolong](sessionId, expires, enough)`: `touch`, but only if the stored expiry is before `enough`. Both are
 *   in milliseconds. Concurrent calls never shorten an expiry that another has set. Resolves to nothing.
 * - `store[maxLifetime]`: the option, or `null`.
 * - `store[maxSessionsPerUser]`: the option that this object was given.
 */
const load = Symbol("load");
const createJson = Symbol("createJson");
const updateJson = Symbol("updateJson");
const prolong = Symbol("prolong");
const maxLifetime = Symbol("maxLifetime");
const maxSessionsPerUser = Symbol("maxSessionsPerUser");

/** Calls the addon and converts its errors to `SessionStoreError`. */
function callNative(call) {
  try {
    return call();
  } catch (error) {
    throw fromNative(error);
  }
}

const CONNECT = 'new ConnectStore(store), from "@fluidauth/native-store"';

/** Rejects a callback. It would never be called, and the app would wait forever. */
function refuseCallback(callback, store, method) {
  if (typeof callback !== "function") return;
  throw misuse(
    `${store?.constructor?.name}.${method} returns a promise and takes no callback. express-session and @fastify/session ` +
      `need ${CONNECT}`,
  );
}

const needsConnectStore = (name) =>
  misuse(`${name} is not a store for express-session or @fastify/session: give them ${CONNECT}`);

const withoutStore = (method) =>
  new TypeError(
    `${method} was called without its store: call store.${method}(…), or store.${method}.bind(store)`,
  );

const ignore = () => undefined;
const isFound = (number) => number === 1;
const decodeReply = (reply, sessionId) => (reply === null ? null : codec.decode(sessionId, reply));

/** Returns the first page of `sessions`, or the page at `next`. All sessions of a user are one page. */
async function readSessionPage(store, options, next) {
  if (next !== undefined) return native.sessions(store, next);
  const { userId } = validateOptions(options, sessionsOptions, { of: "sessions" });
  // A `userId` that is `undefined` by mistake must not list all users.
  if (options === undefined || !("userId" in options)) return native.sessions(store);
  return { found: await native.getByUser(store, codec.userToJson(userId)), unreadable: 0 };
}

/** Iterates over the results of a native call in parts. Leaving early drops the rest. */
async function* partsOf(found) {
  try {
    for (;;) {
      const { isLast, ...part } = callNative(() => native.takeFound(found));
      yield part;
      if (isLast) return;
      // Thousands of sessions must not block the event loop.
      await setImmediate();
    }
  } finally {
    callNative(() => native.dropFound(found));
  }
}

/** Returns a session, or `null` if its text was damaged on a server. */
function decodeReadable(sessionId, text) {
  try {
    return codec.decode(sessionId, text);
  } catch (error) {
    if (error.code === "ERR_STORE_CORRUPT") return null;
    throw error;
  }
}

function dated(session, created) {
  const createdAt = Number.isNaN(created) ? null : new Date(created);
  return { session, createdAt, expiresAt: new Date(session.expires) };
}

/**
 * The base class of every store. `index.d.ts` documents it.
 *
 * All failures reject, nothing throws synchronously. Each method calls the addon before it returns, which is cheaper
 * than a hop to another thread. Only calls that read many sessions use another thread. The hot methods are not `async`:
 * that would cost another promise and three turns of the microtask queue.
 *
 * A native call returns its result, or a ticket that `PendingCalls` waits for.
 */
class SessionStore {
  #store;
  #metrics;
  #calls;
  #events;
  #closing;
  #maxSessionsPerUser;
  #clockOffset = 0;

  constructor(db, store, metrics, calls, given) {
    this.#store = store;
    this.#maxSessionsPerUser = given.maxSessionsPerUser;
    this.#metrics = metrics;
    this.#calls = calls;
    this.#events = new Events(db);
    metrics.reportTo(this.#events);
    this.#events.follow(store);
    Object.defineProperty(this, "db", { value: Object.freeze(db), enumerable: true });
  }

  create(session, callback) {
    if (callback !== undefined) refuseCallback(callback, this, "create");
    try {
      const startedAt = this.#startChange(KIND.create);
      return this.#done(this.#startCreate(session), KIND.create, startedAt);
    } catch (error) {
      return SessionStore.#reject(error, this, KIND.create, SessionStore.prototype.create);
    }
  }

  get(sessionId, callback) {
    if (callback !== undefined) refuseCallback(callback, this, "get");
    try {
      return this.#load(sessionId, decodeReply, sessionId);
    } catch (error) {
      return SessionStore.#reject(error, this, KIND.get, SessionStore.prototype.get);
    }
  }

  [load](sessionId, read, given) {
    try {
      return this.#load(sessionId, read, given);
    } catch (error) {
      return SessionStore.#reject(error, this, KIND.get);
    }
  }

  update(sessionId, session, callback) {
    if (callback !== undefined) refuseCallback(callback, this, "update");
    try {
      const startedAt = this.#startChange(KIND.update);
      return this.#done(this.#startUpdate(sessionId, session), KIND.update, startedAt);
    } catch (error) {
      return SessionStore.#reject(error, this, KIND.update, SessionStore.prototype.update);
    }
  }

  touch(sessionId, expires, callback) {
    if (callback !== undefined) refuseCallback(callback, this, "touch");
    try {
      const startedAt = this.#start(KIND.touch);
      const result = native.touch(this.#store, sessionId, codec.toMillis(expires));
      return this.#whether(result, KIND.touch, startedAt);
    } catch (error) {
      return SessionStore.#reject(error, this, KIND.touch, SessionStore.prototype.touch);
    }
  }

  [createJson](json) {
    try {
      const startedAt = this.#startChange(KIND.create);
      return this.#done(this.#startCreateJson(json), KIND.create, startedAt);
    } catch (error) {
      return SessionStore.#reject(error, this, KIND.create);
    }
  }

  [createAt](session, millis) {
    try {
      const startedAt = this.#startChange(KIND.create);
      const json = codec.sessionToJson(session);
      const created = (expires) => native.createAt(this.#store, json, millis, expires);
      const result = created();
      return this.#done(result === false ? created(codec.expiresOf(json)) : result, KIND.create, startedAt);
    } catch (error) {
      return SessionStore.#reject(error, this, KIND.create);
    }
  }

  [updateJson](sessionId, json) {
    try {
      const startedAt = this.#startChange(KIND.update);
      const result = this.#startUpdateJson(sessionId, json);
      return this.#whether(result === null ? false : result, KIND.update, startedAt);
    } catch (error) {
      return SessionStore.#reject(error, this, KIND.update);
    }
  }

  [prolong](sessionId, expires, enough) {
    try {
      const startedAt = this.#start(KIND.touch);
      return this.#done(native.touch(this.#store, sessionId, expires, enough), KIND.touch, startedAt);
    } catch (error) {
      return SessionStore.#reject(error, this, KIND.touch);
    }
  }

  get [maxSessionsPerUser]() {
    return this.#maxSessionsPerUser;
  }

  get [maxLifetime]() {
    return callNative(() => native.maxLifetimeOf(this.#store)) ?? null;
  }

  delete(sessionId, callback) {
    if (callback !== undefined) refuseCallback(callback, this, "delete");
    try {
      const startedAt = this.#startChange(KIND.delete);
      return this.#done(native.remove(this.#store, sessionId), KIND.delete, startedAt);
    } catch (error) {
      return SessionStore.#reject(error, this, KIND.delete, SessionStore.prototype.delete);
    }
  }

  async clean(callback) {
    refuseCallback(callback, this, "clean");
    await SessionStore.#call(this, KIND.clean, native.clean);
  }

  async getByUser(userId, callback) {
    refuseCallback(callback, this, "getByUser");
    const found = await SessionStore.#call(this, KIND.getByUser, (store) =>
      native.getByUser(store, codec.userToJson(userId)),
    );
    const sessions = [];
    for await (const { texts } of partsOf(found)) {
      for (let at = 0; at < texts.length; at += 2) sessions.push(codec.decode(texts[at], texts[at + 1]));
    }
    return sessions;
  }

  async deleteByUser(userId, options, callback) {
    refuseCallback(callback ?? options, this, "deleteByUser");
    const ended = await SessionStore.#end(this, KIND.deleteByUser, (store) => {
      const { except } = validateOptions(options, deleteByUserOptions, {
        of: "deleteByUser",
        main: "except",
      });
      return native.deleteByUser(store, codec.userToJson(userId), except);
    });
    if (this.db.type === "redis") this.#events.revoked(userId, ended);
    return ended;
  }

  async size(callback) {
    refuseCallback(callback, this, "size");
    return SessionStore.#call(this, KIND.size, native.size);
  }

  async *ids() {
    for await (const { ids } of SessionStore.#pages(this, KIND.ids, native.ids)) yield* ids;
  }

  async *sessions(options) {
    let unreadable = 0;
    const readPage = (store, next) => readSessionPage(store, options, next);
    for await (const page of SessionStore.#pages(this, KIND.sessions, readPage)) {
      unreadable += page.unreadable;
      for await (const { texts, created } of partsOf(page.found)) {
        for (const [at, time] of created.entries()) {
          const session = decodeReadable(texts[2 * at], texts[2 * at + 1]);
          if (session === null) unreadable++;
          // The session may have expired since the page was read.
          else if (new Date(session.expires) > Date.now()) yield dated(session, time);
        }
      }
    }
    if (unreadable > 0) this.#failUnreadable(unreadable);
  }

  async clear(callback) {
    refuseCallback(callback, this, "clear");
    const ended = await SessionStore.#end(this, KIND.clear, native.clear);
    this.#events.cleared(this.db.type === "redis" ? null : ended);
  }

  async ready(options, callback) {
    if (!SessionStore.#isStore(this)) throw withoutStore("ready");
    refuseCallback(callback ?? options, this, "ready");
    await this.#probe(options, READY_TIMEOUT);
  }

  async ping(options, callback) {
    if (!SessionStore.#isStore(this)) throw withoutStore("ping");
    refuseCallback(callback ?? options, this, "ping");
    return this.#probe(options);
  }

  async stats(callback) {
    refuseCallback(callback, this, "stats");
    const { lastSweep, problem, ...counters } = await SessionStore.#call(this, undefined, native.stats);
    return {
      ...counters,
      lastSweep: lastSweep ? { ...lastSweep, at: new Date(lastSweep.at) } : null,
      problem: describeProblem(problem),
      pending: this.#calls?.count ?? 0,
      ...this.#metrics.report(),
    };
  }

  async close(callback) {
    if (!SessionStore.#isStore(this)) throw withoutStore("close");
    refuseCallback(callback, this, "close");
    this.#closing ??= this.#close();
    await this.#closing;
  }

  async [asyncDispose]() {
    await this.close();
  }

  /** express-session calls it on each store. */
  on() {
    throw needsConnectStore(this.constructor.name);
  }

  static on() {
    // biome-ignore lint/complexity/noThisInStatic: the class that was given
    throw needsConnectStore(this.name);
  }

  /** @fastify/session calls it. */
  set() {
    throw needsConnectStore(this.constructor.name);
  }

  /** @fastify/session calls it first if a login regenerates the session. */
  destroy() {
    throw needsConnectStore(this.constructor.name);
  }

  /** The name in `ConnectStore`. */
  async destroyByUser() {
    throw misuse(`${this.constructor.name} has no destroyByUser: it is deleteByUser`);
  }

  #load(sessionId, read, given) {
    const startedAt = this.#start(KIND.get);
    const reply = native.get(this.#store, sessionId);
    if (typeof reply === "number") return this.#calls.add(reply, read, given, KIND.get, startedAt);
    const result = read(reply, given);
    if (startedAt !== 0) this.#metrics.end(KIND.get, startedAt);
    return Promise.resolve(result);
  }

  /** Counts a call, and returns its start time, or 0 if it is not measured. */
  #start(kind) {
    this.#followClock();
    const startedAt = this.#metrics.start(kind);
    if (startedAt !== 0) this.#events.follow(this.#store);
    return startedAt;
  }

  /** The same as `#start`, for a call that may end sessions. */
  #startChange(kind) {
    this.#followClock();
    this.#events.follow(this.#store);
    return this.#metrics.start(kind);
  }

  /** Returns the promise of a write without a result. */
  #done(result, kind, startedAt) {
    if (typeof result === "number") return this.#calls.add(result, ignore, undefined, kind, startedAt);
    if (startedAt !== 0) this.#metrics.end(kind, startedAt);
    return Promise.resolve();
  }

  /** Returns the promise of whether a call found the session. */
  #whether(result, kind, startedAt) {
    if (typeof result === "number") return this.#calls.add(result, isFound, undefined, kind, startedAt);
    if (startedAt !== 0) this.#metrics.end(kind, startedAt);
    return Promise.resolve(result);
  }

  static #isStore(value) {
    return typeof value === "object" && value !== null && #store in value;
  }

  /** Returns the promise of a refused call. `method`: the method that the app called. */
  static #reject(error, store, kind, method) {
    if (!SessionStore.#isStore(store)) return Promise.reject(withoutStore(KINDS[kind]));
    const failure = fromNative(error);
    if (method !== undefined) calledAt(method, failure);
    if (failure instanceof SessionStoreError) store.#metrics.fail(kind, failure);
    return Promise.reject(failure);
  }

  /** Returns the ticket of the native call, or `true`. */
  #startCreate(session) {
    const plain = codec.readPlain(session);
    if (plain !== null) {
      const { sessionId, userId, expires, userFirst } = plain;
      const started = native.create(this.#store, sessionId, userId, expires, userFirst);
      if (started !== false) return started;
    }
    return this.#startCreateJson(codec.sessionToJson(session));
  }

  #startCreateJson(json) {
    const started = native.createJson(this.#store, json);
    return started === false ? native.createJson(this.#store, json, codec.expiresOf(json)) : started;
  }

  #startUpdate(sessionId, session) {
    const plain = codec.readPlain(session);
    if (plain !== null && plain.sessionId === sessionId) {
      const { userId, expires, userFirst } = plain;
      const started = native.update(this.#store, sessionId, userId, expires, userFirst);
      if (started !== false) return started;
    }
    return this.#startUpdateJson(sessionId, codec.sessionToJson(session));
  }

  #startUpdateJson(sessionId, json) {
    const started = native.updateJson(this.#store, sessionId, json);
    return started === false
      ? native.updateJson(this.#store, sessionId, json, codec.expiresOf(json))
      : started;
  }

  /** Makes a call that returns a promise, and counts it if it has a kind. */
  static async #call(self, kind, method, ...args) {
    if (!SessionStore.#isStore(self)) throw withoutStore(KINDS[kind] ?? "stats");
    self.#followClock();
    const startedAt = kind === undefined ? 0 : self.#metrics.start(kind);
    try {
      self.#events.follow(self.#store);
      const result = await method(self.#store, ...args);
      if (startedAt !== 0) self.#metrics.end(kind, startedAt);
      return result;
    } catch (error) {
      const failure = fromNative(error);
      if (kind !== undefined && failure instanceof SessionStoreError) self.#metrics.fail(kind, failure);
      throw failure;
    }
  }

  /**
   * Iterates over the pages of a native call, which takes a resume token. Leaving early frees the scan in the addon.
   */
  static async *#pages(self, kind, method) {
    let next;
    try {
      do {
        const page = await SessionStore.#call(self, kind, method, ...(next === undefined ? [] : [next]));
        next = page.next;
        yield page;
        // A loop of reads runs only microtasks, and would block the event loop.
        if (next !== undefined) await setImmediate();
      } while (next !== undefined);
    } finally {
      if (next !== undefined) callNative(() => native.endScan(self.#store, next));
    }
  }

  #failUnreadable(count) {
    const sessions = count === 1 ? "1 session" : `${count} sessions`;
    const error = new SessionStoreError(
      "ERR_STORE_CORRUPT",
      `${sessions} cannot be read. All others were given`,
    );
    error.unreadable = count;
    this.#metrics.fail(KIND.sessions, error);
    throw error;
  }

  /** Closes the native store. */
  async #close() {
    try {
      this.#followClock();
      await native.close(this.#store);
    } catch (error) {
      throw fromNative(error);
    }
  }

  /** Waits until the store can serve, and resolves to the milliseconds that this took. */
  #probe(options, limit) {
    return SessionStore.#call(this, KIND.ping, async (store) => {
      const { timeout = limit ?? pingTimeout(store) } = validateOptions(options, pingOptions, { of: "ping" });
      const startedAt = now();
      await probe(store, this.db.type, timeout);
      return now() - startedAt;
    });
  }

  /** Resolves to how many sessions a call ended. The native call returns the count, a ticket or a promise. */
  static async #end(self, kind, method) {
    const ended = await SessionStore.#call(self, kind, (store) => {
      const started = method(store);
      return typeof started === "number" ? self.#calls.add(started, (number) => number) : started;
    });
    return typeof ended === "number" ? ended : ended.count;
  }

  /** Makes the store use this thread's `Date.now()` for expiry, which tests may have replaced. */
  #followClock() {
    const offset = clockOffset();
    if (offset === this.#clockOffset) return;
    native.setClockOffset(this.#store, offset);
    this.#clockOffset = offset;
  }
}

module.exports = {
  SessionStore,
  callNative,
  createJson,
  load,
  maxLifetime,
  maxSessionsPerUser,
  prolong,
  updateJson,
};
