"use strict";

// Tests of the traffic that detects lost writes: it must detect them.

const assert = require("node:assert/strict");
const { describe, it } = require("node:test");
const { MemoryStore, SessionStoreError } = require("..");
const { Traffic } = require("./support/redis/traffic.js");

/** A store whose `change` may alter one call in a thousand. Each call takes a turn of the event loop. */
function storeThat(change) {
  const store = new MemoryStore({ sweepInterval: 0 });
  let calls = 0;
  const through =
    (method) =>
    async (...args) => {
      await new Promise(setImmediate);
      const isHonest = ++calls % 1000 > 0 || !change?.[method];
      return isHonest ? store[method](...args) : change[method](store, ...args);
    };
  const methods = ["create", "get", "update", "touch", "delete", "getByUser"];
  return Object.fromEntries(methods.map((method) => [method, through(method)]));
}

/**
 * Returns the violations that traffic finds before its final comparison. A rewrite before the next read hides a
 * violation, so a single one is not enough: every fifth run of 20 000 calls found none.
 */
async function findings(change) {
  const traffic = new Traffic(storeThat(change)).start();
  while (traffic.faults.length === 0 && traffic.calls.length < 400_000) await new Promise(setImmediate);
  await traffic.stop();
  return traffic.faults;
}

const failure = (fields) => Object.assign(new SessionStoreError("ERR_STORE_TIMEOUT", "too late"), fields);

describe("traffic", () => {
  it("finds nothing if nothing is wrong", async () => {
    const store = storeThat();
    const traffic = new Traffic(store).start();
    await traffic.progress(20_000);
    await traffic.stop();
    assert.equal(await traffic.check(store), 0);
    assert.deepEqual(traffic.faults, []);
  });

  it("accepts both results of a write with an unknown outcome", async () => {
    let turn = 0;
    const sometimes =
      (method) =>
      async (store, ...args) => {
        if (++turn % 2) await store[method](...args);
        throw failure({ outcome: "unknown" });
      };
    const change = Object.fromEntries(
      ["create", "update", "touch", "delete"].map((name) => [name, sometimes(name)]),
    );
    const store = storeThat(change);
    const traffic = new Traffic(store).start();
    while (traffic.unknown < 20) await new Promise(setImmediate);
    await traffic.stop();
    assert.equal(await traffic.check(store), 0);
    assert.deepEqual(traffic.faults, []);
  });

  for (const [what, change] of [
    ["a write that was acknowledged and is not there", { update: async () => {} }],
    ["a session that was deleted and is there", { delete: async () => {} }],
    [
      "a write that was refused, and happened",
      {
        update: async (store, ...args) => {
          await store.update(...args);
          throw failure();
        },
      },
    ],
    [
      "an old session that is read",
      {
        get: async (store, id) => ({ ...(await store.get(id)), version: 0 }),
      },
    ],
    [
      "an error that a fault does not explain",
      {
        touch: async () => {
          throw failure({ code: "ERR_STORE_CORRUPT" });
        },
      },
    ],
  ]) {
    it(`finds ${what}`, async () => {
      assert.notEqual((await findings(change)).length, 0);
    });
  }

  it("finds sessions that are missing at the end, also in the index", async () => {
    const store = storeThat();
    const traffic = new Traffic(store).start();
    await traffic.progress(2000);
    await traffic.stop();
    const live = [];
    for (const id of traffic.ids) if (await store.get(id)) live.push(id);
    const gone = live[0];
    const hidden = (await store.get(live[1])).userId;
    const forgetful = {
      get: async (id) => (id === gone ? null : store.get(id)),
      getByUser: async (user) => (user === hidden ? [] : store.getByUser(user)),
    };
    assert.equal(await traffic.check(forgetful), 1);
    assert.ok(traffic.faults.some((fault) => fault.includes("another index")));
  });

  it("reports how long calls took, and when the store had recovered", async () => {
    let isDown = false;
    const inner = storeThat();
    const down = async (method, args) => {
      if (!isDown) return inner[method](...args);
      await new Promise((resolve) => setTimeout(resolve, 50));
      throw failure();
    };
    const store = Object.fromEntries(
      Object.keys(inner).map((method) => [method, (...args) => down(method, args)]),
    );
    const startedAt = performance.now();
    const traffic = new Traffic(store).start();
    await traffic.progress(100);
    const brokenAt = performance.now();
    isDown = true;
    await traffic.failure();
    isDown = false;
    const healedAt = performance.now();
    await traffic.progress(100);
    await traffic.stop();
    const endedAt = performance.now();
    const { longest, recovered, failed, unknown, requests } = traffic.summary(brokenAt, healedAt);
    assert.ok(longest >= 49 && longest <= endedAt - startedAt, `${longest} ms`);
    assert.ok(recovered >= 0 && recovered <= endedAt - healedAt, `${recovered} ms`);
    assert.ok(failed >= 24 && requests >= failed, `${failed} of ${requests}`);
    assert.equal(unknown, 0);
  });
});
