"use strict";

// Fills a store until it refuses more, and tracks the expected content.

const assert = require("node:assert/strict");
const { randomBytes } = require("node:crypto");
const fs = require("node:fs");
const path = require("node:path");
const { setTimeout: sleep } = require("node:timers/promises");
const { session } = require("./file-session.js");

const DELETES_AT_ONCE = 64;

/** Sessions per user. */
const OF_A_USER = 20;

/** The maximum time until a store notices that it has room, in milliseconds. */
const PATIENCE = 30_000;

class Filling {
  /** The acknowledged sessions, by id. */
  live = new Map();
  /** The largest observed size of the file. */
  largest = 0;
  #made = 0;

  constructor(store, { size = 0, atOnce = 64 } = {}) {
    this.store = store;
    this.data = path.join(store.db.path, "data.mdb");
    this.content = size > 0 ? { blob: "x".repeat(size) } : {};
    this.atOnce = atOnce;
  }

  /** Creates sessions until there is no room. Resolves to how many it created. */
  async fill(most = Infinity) {
    const before = this.live.size;
    for (let isFull = false; !isFull && this.live.size - before < most; ) {
      const next = Array.from({ length: this.atOnce }, () => this.#draw());
      const outcomes = await Promise.allSettled(next.map((one) => this.store.create(one)));
      for (const [at, { reason }] of outcomes.entries()) {
        if (reason === undefined) this.live.set(next[at].sessionId, next[at]);
        else assert.equal(reason.code, "ERR_STORE_FULL", reason.message);
      }
      isFull = outcomes.some(({ reason }) => reason);
      this.#look();
    }
    return this.live.size - before;
  }

  /** The same in a store that was full: freed space may not be available immediately. */
  async fillAgain() {
    for (const end = Date.now() + PATIENCE; ; ) {
      const filled = await this.fill();
      if (filled > 0 || Date.now() > end) return filled;
      await sleep(20);
    }
  }

  /** Deletes the oldest sessions. */
  async delete(count) {
    const ids = [...this.live.keys()].slice(0, count);
    for (let at = 0; at < ids.length; at += DELETES_AT_ONCE) {
      await Promise.all(ids.slice(at, at + DELETES_AT_ONCE).map((id) => this.store.delete(id)));
      this.#look();
    }
    for (const id of ids) this.live.delete(id);
  }

  async deleteByUser() {
    const [{ userId }] = this.live.values();
    const ids = [...this.live.values()].filter((one) => one.userId === userId).map((one) => one.sessionId);
    assert.equal(await this.store.deleteByUser(userId), ids.length);
    for (const id of ids) this.live.delete(id);
    this.#look();
  }

  /** Ends some sessions by moving their expiry, and sweeps. */
  async expire(count) {
    const ids = [...this.live.keys()].slice(0, count);
    for (const id of ids) assert.equal(await this.store.touch(id, new Date(1)), true);
    for (const id of ids) this.live.delete(id);
    await this.store.clean();
    this.#look();
  }

  async touch(count) {
    const expires = new Date(Date.now() + 7_200_000).toISOString();
    for (const [id, one] of [...this.live].slice(0, count)) {
      assert.equal(await this.store.touch(id, expires), true);
      this.live.set(id, { ...one, expires });
    }
    this.#look();
  }

  /** Checks that the store has exactly the acknowledged sessions. */
  async check(store = this.store) {
    // Compares text, because there are very many.
    for (const [id, one] of this.live) {
      assert.equal(JSON.stringify(await store.get(id)), JSON.stringify(one));
    }
    const ids = [];
    for await (const id of store.ids()) ids.push(id);
    assert.equal(ids.length, this.live.size);
    assert.ok(ids.every((id) => this.live.has(id)));
    assert.deepEqual((await store.verify()).problems, []);
  }

  #draw() {
    const userId = `user ${Math.floor(this.#made++ / OF_A_USER)}`;
    return session(randomBytes(18).toString("hex"), { userId, ...this.content });
  }

  #look() {
    this.largest = Math.max(this.largest, fs.statSync(this.data).size);
  }
}

module.exports = { Filling };
