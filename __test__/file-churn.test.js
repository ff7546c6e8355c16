"use strict";

// The size of a store's file: freed space is reused, even if processes die.

const assert = require("node:assert/strict");
const { randomBytes } = require("node:crypto");
const fs = require("node:fs");
const path = require("node:path");
const { describe, it } = require("node:test");
const { setTimeout: sleep } = require("node:timers/promises");
const { FileStore } = require("..");
const { makePlace, skip } = require("./support/file-places.js");
const { start } = require("./support/file-scripts.js");
const { session } = require("./support/file-session.js");

const SESSIONS = 2000;
const AT_ONCE = 128;
const place = makePlace();
const newId = () => randomBytes(18).toString("hex");

/** Calls a function for each item of a list, some concurrently. */
async function forAll(list, call) {
  for (let at = 0; at < list.length; at += AT_ONCE) await Promise.all(list.slice(at, at + AT_ONCE).map(call));
}

const create = (store, ids, fields) => forAll(ids, (id) => store.create(session(id, fields)));

/** Drains the log into the file. */
const drain = (store) => store.ids().next();

/** Creates a constant number of sessions, and deletes them. */
async function churn(store, fields) {
  const ids = Array.from({ length: SESSIONS }, newId);
  await create(store, ids, { userId: "guest", ...fields });
  await drain(store);
  await forAll(ids, (id) => store.touch(id, Date.now() + 1e6));
  await drain(store);
  await forAll(ids, (id) => store.delete(id));
  await drain(store);
}

async function withBase(options, call) {
  const store = new FileStore({ path: place.next(), sweepInterval: 0, ...options });
  const base = Array.from({ length: SESSIONS }, newId);
  await create(store, base, { userId: "resident" });
  await churn(store);
  const size = () => fs.statSync(path.join(store.db.path, "data.mdb")).size;
  await call(store, size);
  assert.equal((await store.getByUser("resident")).length, SESSIONS);
  assert.equal(await store.size(), SESSIONS);
  await store.close();
}

describe("the file", { skip }, () => {
  for (const [what, options, fields] of [
    ["sessions", {}, {}],
    ["sealed sessions", { secret: "a secret of some length" }, {}],
    ["sessions of 1 to 3 pages", {}, { blob: "x".repeat(6000) }],
  ]) {
    it(`does not grow while ${what} come and go`, async (t) => {
      await withBase(options, async (store, size) => {
        await churn(store, fields);
        const first = size();
        for (let round = 0; round < 5; round++) await churn(store, fields);
        t.diagnostic(`${first} bytes after the first round, ${size()} after five more`);
        assert.ok(size() <= 1.5 * first, `${first} bytes became ${size()}`);
      });
    });
  }

  /** Reads continuously, so that a kill interrupts a read. */
  const READ = `
    const store = new FileStore({ path: process.argv[1] });
    const read = async () => {
      for (;;) {
        await store.getByUser("resident");
        await new Promise(setImmediate);
      }
    };
    read();
    setImmediate(() => say("reading"));`;

  /** Several processes, because not each of them is in a read when it is killed. */
  async function killReaders(store) {
    const readers = Array.from({ length: 4 }, () => start(READ, { args: [store.db.path] }));
    await Promise.all(readers.map((reader) => reader.hear()));
    await sleep(20);
    await Promise.all(readers.map((reader) => reader.kill()));
  }

  it("stops growing soon after processes were killed while they read", async (t) => {
    await withBase({}, async (store, size) => {
      await killReaders(store);
      for (const end = Date.now() + 2500; Date.now() < end; ) await churn(store);
      const late = size();
      for (let round = 0; round < 10; round++) await churn(store);
      t.diagnostic(`${late} bytes 2.5 s after the kills, ${size()} after ten rounds more`);
      assert.ok(size() <= 1.1 * late, `${late} bytes became ${size()}`);
    });
  });

  it("hardly grows for processes that were killed while they read", async (t) => {
    await withBase({}, async (store, size) => {
      const first = size();
      await killReaders(store);
      for (let round = 0; round < 10; round++) await churn(store);
      t.diagnostic(`${first} bytes became ${size()}`);
      assert.ok(size() <= 3 * first, `${first} bytes became ${size()}`);
    });
  });
});

describe("sessions of a megabyte", { skip }, () => {
  it("come and go like others, and survive a reopening", async () => {
    const options = { path: place.next(), secret: "a secret of some length", maxSessionBytes: 2 ** 21 };
    let store = new FileStore(options);
    const given = Array.from({ length: 12 }, (_, at) => {
      const blob = randomBytes(500_000).toString("hex");
      return session(`${at}`, { userId: at % 3, blob });
    });
    await Promise.all(given.map((one) => store.create(one)));
    for (const one of given) await store.update(one.sessionId, { ...one, blob: `${one.blob}!` });
    await store.close();
    store = new FileStore(options);
    for (const one of given)
      assert.deepEqual(await store.get(one.sessionId), { ...one, blob: `${one.blob}!` });
    assert.equal((await store.getByUser(1)).length, 4);
    assert.equal(await store.deleteByUser(1), 4);
    assert.equal(await store.touch("0", Date.now() + 1e6), true);
    assert.equal((await store.get("0")).blob.length, 1_000_001);
    const tooLarge = session("large", { blob: "x".repeat(2 ** 21) });
    await assert.rejects(store.create(tooLarge), { code: "ERR_SESSION_TOO_LARGE" });
    assert.equal(await store.size(), 8);
    await store.close();
  });
});
