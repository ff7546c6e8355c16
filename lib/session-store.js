"use strict";

const { setImmediate } = require("node:timers/promises");
const native = require("./native.js");
const { fromNative } = require("./errors.js");
const { deleteByUserOptions, validateOptions } = require("./options.js");
const codec = require("./session-codec.js");

// Node 20 had it from its fourth release on.
const asyncDispose = Symbol.asyncDispose ?? Symbol.for("nodejs.asyncDispose");

/**
 * `store[prolong](sessionId, expires, enough)`: `touch`, but of an expiry that is before `enough` alone, both in
 * milliseconds. Of calls at once none moves back what another has moved.
 */
const prolong = Symbol("prolong");

/** Opens a store of the addon. Its errors become those that users know. */
function open(call) {
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
 * Whatever goes wrong rejects. Each method begins its work before it returns: a call into the addon takes less than a
 * hop to another thread. What looks at every session runs on one. The hot ones are not `async`: that would be a promise
 * and three turns of the microtask queue more for each.
 *
 * A write is done when its native call returns `true`. It may return a ticket instead, as a read may, and `writes`
 * tells its end.
 */
class SessionStore {
  #store;
  #writes;
  #closing;

  constructor(db, store, writes) {
    this.#store = store;
    this.#writes = writes;
    Object.defineProperty(this, "db", { value: Object.freeze(db), enumerable: true });
  }

  create(session) {
    try {
      return this.#end(this.#beginCreate(session));
    } catch (error) {
      return Promise.reject(fromNative(error));
    }
  }

  get(sessionId) {
    try {
      const reply = native.get(this.#store, sessionId);
      if (typeof reply === "number") return this.#writes.end(reply, decodeReply, sessionId);
      return Promise.resolve(decodeReply(reply, sessionId));
    } catch (error) {
      return Promise.reject(fromNative(error));
    }
  }

  update(sessionId, session) {
    try {
      return this.#end(this.#beginUpdate(sessionId, session));
    } catch (error) {
      return Promise.reject(fromNative(error));
    }
  }

  touch(sessionId, expires) {
    try {
      return this.#whether(native.touch(this.#store, sessionId, codec.toMillis(expires)));
    } catch (error) {
      return Promise.reject(fromNative(error));
    }
  }

  [prolong](sessionId, expires, enough) {
    try {
      return this.#whether(native.touch(this.#store, sessionId, expires, enough));
    } catch (error) {
      return Promise.reject(fromNative(error));
    }
  }

  delete(sessionId) {
    try {
      return this.#end(native.remove(this.#store, sessionId));
    } catch (error) {
      return Promise.reject(fromNative(error));
    }
  }

  async clean() {
    await this.#call(native.clean);
  }

  async getByUser(userId) {
    const sessions = await this.#call(native.getByUser, codec.userToJson(userId));
    return sessions.map(([sessionId, reply]) => codec.decode(sessionId, reply));
  }

  async deleteByUser(userId, options) {
    const { except } = validateOptions(options, deleteByUserOptions);
    return this.#call(native.deleteByUser, codec.userToJson(userId), except);
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
    await this.#call(native.clear);
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

  /** Settles with the end of a write that gives nothing. */
  #end(begun) {
    return begun === true ? Promise.resolve() : this.#writes.end(begun, ignore);
  }

  /** Settles with whether a call found the session. */
  #whether(begun) {
    return typeof begun === "number" ? this.#writes.end(begun, isFound) : Promise.resolve(begun);
  }

  /** The native call's ticket, or `true`. */
  #beginCreate(session) {
    const plain = codec.readPlain(session);
    if (plain !== null) {
      const { sessionId, userId, expires, userFirst } = plain;
      const begun = native.create(this.#store, sessionId, userId, expires, userFirst);
      if (begun !== false) return begun;
    }
    const json = codec.sessionToJson(session);
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
    const json = codec.sessionToJson(session);
    const begun = native.updateJson(this.#store, sessionId, json);
    return begun === false ? native.updateJson(this.#store, sessionId, json, codec.expiresOf(json)) : begun;
  }

  async #call(method, ...args) {
    try {
      return await method(this.#store, ...args);
    } catch (error) {
      throw fromNative(error);
    }
  }
}

module.exports = { SessionStore, open, prolong };
