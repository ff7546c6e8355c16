"use strict";

const { setImmediate } = require("node:timers/promises");
const { clockOffset } = require("./clock.js");
const native = require("./native.js");
const { fromNative } = require("./errors.js");
const { deleteByUserOptions, validateOptions } = require("./options.js");
const codec = require("./session-codec.js");

// Node 20 had it from its fourth release on.
const asyncDispose = Symbol.asyncDispose ?? Symbol.for("nodejs.asyncDispose");

/**
 * Methods for `ConnectStore`:
 * - `store[load](sessionId, read, given)`: `get`, which resolves to `read(reply, given)`. The reply is `null`, or a text
 *   for `decode` of `session-codec.js`, which ends with the session's JSON as it is stored.
 * - `store[createJson](json)`, `store[updateJson](sessionId, json)`: `create` and `update` of a session's JSON text.
 * - `store[prolong](sessionId, expires, enough)`: `touch`, but of an expiry that is before `enough` alone, both in
 *   milliseconds. Of calls at once none moves back what another has moved. Resolves to nothing.
 * - `store[maxLifetime]`: the option, or `null`.
 */
const load = Symbol("load");
const createJson = Symbol("createJson");
const updateJson = Symbol("updateJson");
const prolong = Symbol("prolong");
const maxLifetime = Symbol("maxLifetime");

/** Calls the addon and converts its errors to `SessionStoreError`. */
function callNative(call) {
  try {
    return call();
  } catch (error) {
    throw fromNative(error);
  }
}

const ignore = () => undefined;
const isFound = (number) => number === 1;
const decodeReply = (reply, sessionId) => (reply === null ? null : codec.decode(sessionId, reply));

/**
 * What every store does. `index.d.ts` documents it.
 *
 * All failures reject; nothing throws synchronously. Each method begins its work before it returns: a call into the addon
 * takes less than a hop to another thread. Only calls that look at many sessions run on one. The hot methods are not
 * `async`: that would cost a promise and three turns of the microtask queue more for each.
 *
 * A native call returns its result, or a ticket under which `PendingCalls` waits for it.
 */
class SessionStore {
  #store;
  #calls;
  #closing;
  #clockOffset = 0;

  constructor(db, store, calls) {
    this.#store = store;
    this.#calls = calls;
    Object.defineProperty(this, "db", { value: Object.freeze(db), enumerable: true });
  }

  create(session) {
    try {
      this.#followClock();
      return this.#done(this.#beginCreate(session));
    } catch (error) {
      return Promise.reject(fromNative(error));
    }
  }

  get(sessionId) {
    try {
      return this.#load(sessionId, decodeReply, sessionId);
    } catch (error) {
      return Promise.reject(fromNative(error));
    }
  }

  [load](sessionId, read, given) {
    try {
      return this.#load(sessionId, read, given);
    } catch (error) {
      return Promise.reject(fromNative(error));
    }
  }

  update(sessionId, session) {
    try {
      this.#followClock();
      return this.#done(this.#beginUpdate(sessionId, session));
    } catch (error) {
      return Promise.reject(fromNative(error));
    }
  }

  touch(sessionId, expires) {
    try {
      this.#followClock();
      return this.#whether(native.touch(this.#store, sessionId, codec.toMillis(expires)));
    } catch (error) {
      return Promise.reject(fromNative(error));
    }
  }

  [createJson](json) {
    try {
      this.#followClock();
      return this.#done(this.#beginCreateJson(json));
    } catch (error) {
      return Promise.reject(fromNative(error));
    }
  }

  [updateJson](sessionId, json) {
    try {
      this.#followClock();
      return this.#done(this.#beginUpdateJson(sessionId, json));
    } catch (error) {
      return Promise.reject(fromNative(error));
    }
  }

  [prolong](sessionId, expires, enough) {
    try {
      this.#followClock();
      return this.#done(native.touch(this.#store, sessionId, expires, enough));
    } catch (error) {
      return Promise.reject(fromNative(error));
    }
  }

  get [maxLifetime]() {
    return callNative(() => native.maxLifetimeOf(this.#store)) ?? null;
  }

  delete(sessionId) {
    try {
      this.#followClock();
      return this.#done(native.remove(this.#store, sessionId));
    } catch (error) {
      return Promise.reject(fromNative(error));
    }
  }

  async clean() {
    await this.#call(native.clean);
  }

  async getByUser(userId) {
    const found = await this.#call(native.getByUser, codec.userToJson(userId));
    const sessions = [];
    for (;;) {
      const { texts, isLast } = callNative(() => native.takeFound(found));
      for (let at = 0; at < texts.length; at += 2) sessions.push(codec.decode(texts[at], texts[at + 1]));
      if (isLast) return sessions;
      // Thousands of sessions must not hold up the event loop.
      await setImmediate();
    }
  }

  async deleteByUser(userId, options) {
    const { except } = validateOptions(options, deleteByUserOptions);
    return this.#end(native.deleteByUser, codec.userToJson(userId), except);
  }

  async size() {
    return this.#call(native.size);
  }

  async *ids() {
    let page = await this.#call(native.ids);
    yield* page.ids;
    while (page.next !== undefined) {
      // Microtasks alone, which is what a loop with nothing but reads makes, would keep all else waiting.
      await setImmediate();
      page = await this.#call(native.ids, page.next);
      yield* page.ids;
    }
  }

  async clear() {
    await this.#end(native.clear);
  }

  async stats() {
    const { lastSweep, ...counters } = await this.#call(native.stats);
    return { ...counters, lastSweep: lastSweep ? { ...lastSweep, at: new Date(lastSweep.at) } : null };
  }

  async close() {
    this.#closing ??= this.#call(native.close);
    await this.#closing;
  }

  async [asyncDispose]() {
    await this.close();
  }

  #load(sessionId, read, given) {
    this.#followClock();
    const reply = native.get(this.#store, sessionId);
    if (typeof reply === "number") return this.#calls.add(reply, read, given);
    return Promise.resolve(read(reply, given));
  }

  /** Settles with the end of a write that gives nothing. */
  #done(begun) {
    return typeof begun === "number" ? this.#calls.add(begun, ignore) : Promise.resolve();
  }

  /** Settles with whether a call found the session. */
  #whether(begun) {
    return typeof begun === "number" ? this.#calls.add(begun, isFound) : Promise.resolve(begun);
  }

  /** The native call's ticket, or `true`. */
  #beginCreate(session) {
    const plain = codec.readPlain(session);
    if (plain !== null) {
      const { sessionId, userId, expires, userFirst } = plain;
      const begun = native.create(this.#store, sessionId, userId, expires, userFirst);
      if (begun !== false) return begun;
    }
    return this.#beginCreateJson(codec.sessionToJson(session));
  }

  #beginCreateJson(json) {
    const begun = native.createJson(this.#store, json);
    return begun === false ? native.createJson(this.#store, json, codec.expiresOf(json)) : begun;
  }

  #beginUpdate(sessionId, session) {
    const plain = codec.readPlain(session);
    if (plain !== null && plain.sessionId === sessionId) {
      const { userId, expires, userFirst } = plain;
      const begun = native.update(this.#store, sessionId, userId, expires, userFirst);
      if (begun !== false) return begun;
    }
    return this.#beginUpdateJson(sessionId, codec.sessionToJson(session));
  }

  #beginUpdateJson(sessionId, json) {
    const begun = native.updateJson(this.#store, sessionId, json);
    return begun === false ? native.updateJson(this.#store, sessionId, json, codec.expiresOf(json)) : begun;
  }

  async #call(method, ...args) {
    try {
      this.#followClock();
      return await method(this.#store, ...args);
    } catch (error) {
      throw fromNative(error);
    }
  }

  /** Resolves to how many sessions a call has ended, which it says at once, under a ticket or by a promise. */
  async #end(method, ...args) {
    try {
      this.#followClock();
      const begun = method(this.#store, ...args);
      if (typeof begun === "number") return await this.#calls.add(begun, (number) => number);
      const ended = await begun;
      return typeof ended === "number" ? ended : ended.count;
    } catch (error) {
      throw fromNative(error);
    }
  }

  /** Has the store judge expiry by this thread's `Date.now()`, which a suite of tests may have replaced. */
  #followClock() {
    const offset = clockOffset();
    if (offset === this.#clockOffset) return;
    native.setClockOffset(this.#store, offset);
    this.#clockOffset = offset;
  }
}

module.exports = { SessionStore, callNative, createJson, load, maxLifetime, prolong, updateJson };
