"use strict";

// Encrypted sessions on a server that loses its data: all stores soon use the same keys again.

const assert = require("node:assert/strict");
const { afterEach, beforeEach, describe, it } = require("node:test");
const { RedisStore } = require("..");
const { redisMissing, startServer, until } = require("./support/redis-servers.js");
const { session } = require("./conformance.js");

const SECRET = "a secret of some length";

describe("encrypted sessions on a server that loses its data", { skip: redisMissing }, () => {
  let server;
  let stores;
  let users = 0;
  beforeEach(async () => {
    server = await startServer();
    stores = [];
  });
  afterEach(async () => {
    await Promise.all(stores.map((store) => store.close()));
    await server.kill();
  });

  const open = (options) => {
    const store = new RedisStore({ url: server.url, secret: SECRET, commandTimeout: 30_000, ...options });
    stores.push(store);
    return store;
  };

  async function restartEmpty() {
    await server.kill();
    await server.start();
  }

  /** Each store sees the sessions that any of them creates, and can end them. */
  async function agree(...all) {
    for (const writer of all) {
      const given = session({ userId: `user ${++users}` });
      await writer.create(given);
      for (const reader of all) {
        assert.deepEqual(await reader.get(given.sessionId), given);
        assert.equal((await reader.getByUser(given.userId)).length, 1);
      }
      await all[0].delete(given.sessionId);
      for (const reader of all) assert.equal(await reader.get(given.sessionId), null);
    }
  }

  for (const sweepInterval of [undefined, 0]) {
    const options = sweepInterval === undefined ? {} : { sweepInterval };
    describe(`with ${sweepInterval === 0 ? "no" : "the usual"} background sweep`, () => {
      it("are visible to a store that starts after the loss, once the old one has created some", async () => {
        const old = open(options);
        await old.create(session());
        await restartEmpty();
        const given = session();
        await old.create(given);
        const fresh = open(options);
        assert.deepEqual(await fresh.get(given.sessionId), given);
        await agree(old, fresh);
      });

      it("are visible to an old store whose first call comes after a new store has created new keys", async () => {
        const olds = [open(options), open(options)];
        for (const old of olds) await old.create(session());
        await restartEmpty();
        const fresh = open(options);
        const given = session();
        await fresh.create(given);
        for (const old of olds) assert.deepEqual(await old.get(given.sessionId), given);
        await agree(...olds, fresh);
      });

      it("are visible to all stores, whichever of them reconnects and calls first", async () => {
        for (let round = 0; round < 5; round++) {
          const some = [open(options), open(options), open(options)];
          await Promise.all(some.map((store) => store.get("x")));
          await restartEmpty();
          some.push(open(options));
          const made = some.map(() => session());
          await Promise.all(made.map((given, at) => some[(at + round) % some.length].create(given)));
          for (const store of some) {
            for (const given of made) assert.deepEqual(await store.get(given.sessionId), given);
          }
          await agree(...some);
        }
      });

      it("are visible again within seconds after the server was flushed, without a reconnect", async () => {
        const old = open(options);
        await old.create(session());
        await server.call("FLUSHALL");
        const fresh = open(options);
        const given = session();
        await fresh.create(given);
        await until(async () => (await old.get(given.sessionId)) !== null, "the old store has the keys");
        await agree(old, fresh);
      });

      it("keep the keys of a store that sees the flush first", async () => {
        const old = open(options);
        await old.create(session());
        const kept = await server.call("GET", "fluid:seal");
        await server.call("FLUSHALL");
        await until(async () => (await server.call("GET", "fluid:seal")) === kept, "the keys are back");
        await agree(old, open(options));
      });
    });
  }

  it("keep their keys while stores with more and with fewer secrets are open", async () => {
    const [one, both] = [open(), open({ secret: ["another secret of some length", SECRET] })];
    await one.create(session());
    await both.create(session());
    await restartEmpty();
    await Promise.all([one.get("x"), both.get("x")]);
    const first = await server.call("GET", "fluid:seal");
    // Neither rewraps them because of the other.
    for (let round = 0; round < 5; round++) {
      await server.call("CLIENT", "KILL", "TYPE", "normal");
      await Promise.all([one.get("x"), both.get("x")]);
      assert.equal(await server.call("GET", "fluid:seal"), first);
    }
    const given = session();
    await one.create(given);
    assert.deepEqual(await both.get(given.sessionId), given);
  });
});
