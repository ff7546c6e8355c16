"use strict";

// `sessions()` of every store, as a part of the contract in `conformance.js`.

const assert = require("node:assert/strict");
const { it, mock } = require("node:test");
const fc = require("fast-check");

const HOUR = 3_600_000;
// The clocks of the server and of this machine may differ by the network delay.
const CLOCKS = 1000;
// A page has a few more if several sessions share a hash.
const PAGE = 256 + 8;

const at = (millis) => new Date(Date.now() + millis).toISOString();

async function all(store, options) {
  const entries = [];
  for await (const entry of store.sessions(options)) entries.push(entry);
  return entries;
}

const idsOf = (entries) => entries.map(({ session }) => session.sessionId).sort();

async function fill(store, count, fieldsOf = () => ({})) {
  const made = Array.from({ length: count }, (_, number) => ({
    sessionId: `session ${number}`,
    expires: at(HOUR),
    userId: "ann",
    ...fieldsOf(number),
  }));
  await Promise.all(made.map((session) => store.create(session)));
  return made;
}

/** @param {() => object} currentStore The store of the test that runs. */
function sessionsConformance(currentStore, failsWith) {
  const pages = async () => (await currentStore().stats()).calls.sessions.count;

  it("yields each session with its times", async () => {
    const store = currentStore();
    const before = Date.now();
    const [first, second] = await fill(store, 2, (number) => ({ cart: [number] }));
    await store.touch(first.sessionId, at(2 * HOUR));
    const changed = { ...second, cart: "new" };
    await store.update(second.sessionId, changed);
    const entries = await all(store);
    assert.deepEqual(idsOf(entries), [first.sessionId, second.sessionId]);
    for (const { session, createdAt, expiresAt, ...others } of entries) {
      assert.deepEqual(session, await store.get(session.sessionId));
      assert.ok(createdAt instanceof Date && createdAt >= before - CLOCKS, `${createdAt}`);
      assert.ok(createdAt <= Date.now() + CLOCKS, `${createdAt}`);
      assert.deepEqual(expiresAt, new Date(session.expires));
      assert.deepEqual(others, {});
    }
  });

  it("never yields an expired session, even if it expires while it waits for the caller", async () => {
    const store = currentStore();
    await fill(store, 40, (number) => ({ expires: at(number % 2 === 0 ? HOUR : 3 * HOUR) }));
    await store.create({ sessionId: "past", expires: at(-1), userId: "ann" });
    const entries = [];
    try {
      for await (const entry of store.sessions()) {
        if (entries.push(entry) > 1) continue;
        const later = Date.now() + 2 * HOUR;
        mock.method(Date, "now", () => later);
      }
    } finally {
      mock.restoreAll();
    }
    const [, ...rest] = entries;
    assert.ok(rest.length === 19 || rest.length === 20, `${rest.length}`);
    assert.ok(rest.every(({ expiresAt }) => expiresAt > Date.now() + 2 * HOUR));
  });

  it("yields the sessions of a user, which may be any JSON value", async () => {
    const store = currentStore();
    await fill(store, 300, (number) => ({ userId: number % 3 === 0 ? 7 : "7" }));
    const entries = await all(store, { userId: 7 });
    assert.equal(entries.length, 100);
    for (const { session, createdAt, expiresAt } of entries) {
      assert.equal(session.userId, 7);
      assert.ok(createdAt instanceof Date && expiresAt > createdAt);
    }
    const found = await store.getByUser(7);
    assert.deepEqual(
      entries.map(({ session }) => session),
      found,
    );
    assert.deepEqual(await all(store, { userId: "nobody" }), []);
  });

  it("streams pages of bounded size", async () => {
    const store = currentStore();
    await fill(store, 700);
    const iterator = store.sessions();
    assert.equal(await pages(), 0);
    let count = 0;
    while (!(await iterator.next()).done) {
      count++;
      const taken = await pages();
      assert.ok(count <= taken * PAGE, `${count} sessions of ${taken} pages`);
      // No page is fetched before the sessions of the previous one were taken.
      if (count === 1) assert.ok(taken <= 2, `${taken} pages for the first session`);
    }
    assert.equal(count, 700);
  });

  it("can be left early, in any way in which a loop can end", async () => {
    const store = currentStore();
    await fill(store, 600);
    // More loops than a store allows concurrently: each must end before the next.
    const open = store.sessions();
    await open.next();
    for (let round = 0; round < 150; round++) {
      for await (const _ of store.sessions()) break;
      for await (const _ of store.ids()) break;
    }
    let rest = 0;
    for await (const _ of open) rest++;
    assert.equal(rest, 599);
    const failing = async () => {
      for await (const _ of store.sessions({ userId: "ann" })) throw new Error("of the app");
    };
    await assert.rejects(failing(), /of the app/);
    const iterator = store.sessions();
    await iterator.next();
    assert.deepEqual(await iterator.return(), { done: true, value: undefined });
    assert.equal((await iterator.next()).done, true);
    assert.equal((await all(store)).length, 600);
  });

  it("refuses options that could list more than intended", async () => {
    const store = currentStore();
    await fill(store, 1);
    for (const [options, code, words] of [
      [{ userId: undefined }, "ERR_INVALID_SESSION", /^userId must be /],
      [Object.create({ userId: undefined }), "ERR_INVALID_SESSION", /^userId must be /],
      [{ userId: null }, "ERR_INVALID_SESSION", /^userId must be /],
      [{ userId: NaN }, "ERR_INVALID_SESSION", /^userId must be /],
      [{ userid: "ann" }, "ERR_INVALID_OPTION", /did you mean userId/],
      [null, "ERR_INVALID_OPTION", /^options must be an object; got null/],
      ["ann", "ERR_INVALID_OPTION", /^options must be an object; got /],
    ]) {
      await assert.rejects(store.sessions(options).next(), failsWith(code, words));
    }
    assert.equal((await all(store, undefined)).length, 1);
    assert.equal((await all(store, {})).length, 1);
    const { calls } = await store.stats();
    assert.equal(calls.sessions.errors.ERR_INVALID_SESSION, 4);
  });

  it("rejects when the store closes between two pages", async () => {
    const store = currentStore();
    await fill(store, 600);
    const iterator = store.sessions();
    await iterator.next();
    await store.close();
    const drain = async () => {
      while (!(await iterator.next()).done);
    };
    await assert.rejects(drain(), failsWith("ERR_STORE_CLOSED"));
  });

  it("yields sessions that stay exactly once, and none twice, while others change the store", async () => {
    const change = fc.record({
      kind: fc.constantFrom("create", "delete", "grow", "shrink", "touch", "end"),
      number: fc.nat(599),
      after: fc.nat(400),
    });
    const property = fc.asyncProperty(fc.array(change, { maxLength: 200 }), async (changes) => {
      const store = currentStore();
      await store.clear();
      const staying = new Map((await fill(store, 400)).map((session) => [session.sessionId, session]));
      changes.sort((one, other) => one.after - other.after);
      const [seen, calls] = [[], []];
      for await (const { session } of store.sessions()) {
        seen.push(session.sessionId);
        while (changes.length > 0 && changes[0].after <= seen.length) {
          calls.push(apply(store, changes.shift(), staying));
        }
      }
      await Promise.all(calls);
      assert.equal(new Set(seen).size, seen.length, "none comes twice");
      const missed = [...staying.keys()].filter((id) => !seen.includes(id));
      assert.deepEqual(missed, []);
    });
    await fc.assert(property, { numRuns: 5 });
  });
}

/** Starts a change, and removes the sessions that it ends from `staying`. */
function apply(store, { kind, number }, staying) {
  const sessionId = `session ${number}`;
  const session = { sessionId, expires: at(HOUR), userId: "ben" };
  switch (kind) {
    case "create":
      return store.create({ ...session, sessionId: `new ${number}` }).catch(() => {});
    case "delete":
      staying.delete(sessionId);
      return store.delete(sessionId);
    case "grow":
      return store.update(sessionId, { ...session, padding: "x".repeat(number * 3) });
    case "shrink":
      return store.update(sessionId, session);
    case "touch":
      return store.touch(sessionId, at(2 * HOUR));
    case "end":
      staying.delete(sessionId);
      return store.touch(sessionId, at(-1));
    default:
      throw new Error(kind);
  }
}

module.exports = { sessionsConformance };
