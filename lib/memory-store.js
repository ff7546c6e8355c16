"use strict";

const native = require("../binding.js");
const { fromNative } = require("./errors.js");
const { deleteByUserOptions, memoryOptions, validateOptions } = require("./options.js");
const codec = require("./session-codec.js");

// Node 20 had it from its fourth release on.
const asyncDispose = Symbol.asyncDispose ?? Symbol.for("nodejs.asyncDispose");

/**
 * Sessions in native memory. `index.d.ts` documents it.
 *
 * Each method is `async`, so that whatever goes wrong rejects, but does its work before it returns: a call into the
 * addon takes less than a hop to another thread. What looks at every session runs on one.
 */
class MemoryStore {
  #store;

  constructor(options) {
    const given = validateOptions(options, memoryOptions);
    try {
      this.#store = native.openMemory(given);
    } catch (error) {
      throw fromNative(error);
    }
    const db = Object.freeze({ type: "memory", name: given.name ?? null });
    Object.defineProperty(this, "db", { value: db, enumerable: true });
  }

  async create(session) {
    try {
      const plain = codec.readPlain(session);
      if (plain !== null) {
        const { sessionId, userId, expires, userFirst } = plain;
        if (native.create(this.#store, sessionId, userId, expires, userFirst)) return;
      }
      const json = codec.sessionToJson(session);
      if (!native.createJson(this.#store, json)) native.createJson(this.#store, json, codec.expiresOf(json));
    } catch (error) {
      throw fromNative(error);
    }
  }

  async get(sessionId) {
    try {
      const reply = native.get(this.#store, sessionId);
      return reply === null ? null : codec.decode(sessionId, reply);
    } catch (error) {
      throw fromNative(error);
    }
  }

  async update(sessionId, session) {
    try {
      const plain = codec.readPlain(session);
      if (plain !== null && plain.sessionId === sessionId) {
        const { userId, expires, userFirst } = plain;
        if (native.update(this.#store, sessionId, userId, expires, userFirst)) return;
      }
      const json = codec.sessionToJson(session);
      if (native.updateJson(this.#store, sessionId, json)) return;
      native.updateJson(this.#store, sessionId, json, codec.expiresOf(json));
    } catch (error) {
      throw fromNative(error);
    }
  }

  async touch(sessionId, expires) {
    try {
      return native.touch(this.#store, sessionId, codec.toMillis(expires));
    } catch (error) {
      throw fromNative(error);
    }
  }

  async delete(sessionId) {
    try {
      native.remove(this.#store, sessionId);
    } catch (error) {
      throw fromNative(error);
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
    for (let cursor = 0; cursor !== undefined; ) {
      const { ids, next } = await this.#call(native.ids, cursor);
      yield* ids;
      cursor = next;
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
    await this.#call(native.close);
  }

  async [asyncDispose]() {
    await this.close();
  }

  async #call(method, ...args) {
    try {
      return await method(this.#store, ...args);
    } catch (error) {
      throw fromNative(error);
    }
  }
}

module.exports = { MemoryStore };
