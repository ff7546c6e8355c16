"use strict";

const assert = require("node:assert/strict");
const { describe, it } = require("node:test");
const { Interruption } = require("../lib/cli/failures.js");
const { OldSessions } = require("../lib/cli/old-sessions.js");

const BEFORE = Date.parse("2026-11-28");

const entries = (count) =>
  Array.from({ length: count }, (_, at) => ({ session: { sessionId: `s${at}` }, createdAt: new Date(0) }));

/** A store whose scan fails after these entries, and whose deletes of the ids in `stuck` fail. */
class Store {
  deleted = 0;

  constructor(found, { failure, stuck = [] }) {
    this.found = found;
    this.failure = failure;
    this.stuck = stuck;
  }

  async *sessions() {
    yield* this.found;
    if (this.failure) throw this.failure;
  }

  async delete(id) {
    // Later than the deletes that fail.
    if (this.stuck.includes(id)) throw Object.assign(new Error("no room"), { code: "ERR_STORE_FULL" });
    await new Promise(setImmediate);
    this.deleted++;
  }
}

const oldSessionsOf = (store) => {
  const task = { throwIfInterrupted() {}, note() {} };
  return new OldSessions(store, task, { before: BEFORE });
};

describe("OldSessions", () => {
  for (const [what, failure, said] of [
    ["fails", Object.assign(new Error("gone"), { code: "ERR_STORE_IO" }), "gone (ERR_STORE_IO); "],
    ["is interrupted", new Interruption(), ""],
  ]) {
    it(`reports how many it has ended when the scan ${what}`, async () => {
      const store = new Store(entries(300), { failure });
      await assert.rejects(oldSessionsOf(store).end(), (error) => {
        assert.equal(error.message, `${said}stopped after ${store.deleted} sessions ended`);
        assert.equal(error instanceof Interruption, failure instanceof Interruption);
        return true;
      });
      assert.ok(store.deleted >= 256);
    });
  }

  it("counts the successful deletes when others fail", async () => {
    const store = new Store(entries(10), { stuck: ["s3", "s7"] });
    await assert.rejects(oldSessionsOf(store).end(), {
      message: "no room (ERR_STORE_FULL); stopped after 8 sessions ended",
    });
    assert.equal(store.deleted, 8);
  });

  it("returns the original failure when no session has ended", async () => {
    const failure = new Error("secret is missing");
    await assert.rejects(oldSessionsOf(new Store([], { failure })).end(), failure);
  });
});
