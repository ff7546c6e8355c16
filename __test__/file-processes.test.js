"use strict";

// Processes, workers of a cluster and threads that share a store.

const assert = require("node:assert/strict");
const fs = require("node:fs");
const path = require("node:path");
const { after, before, describe, it } = require("node:test");
const { FileStore } = require("..");
const { here, soon, startClusterWorker, startProcess, startThread } = require("./support/file-peers.js");
const { makePlace, skip } = require("./support/file-places.js");
const { session } = require("./support/file-session.js");

const PROCESSES = 8;
const place = makePlace();

/** Stops all peers after their tests. */
function startForAll(start) {
  const peers = [];
  before(async () => peers.push(...(await start())));
  after(() => Promise.all(peers.map((peer) => peer.stop())));
  return peers;
}

describe("a write that is acknowledged", { skip }, () => {
  const peers = startForAll(() =>
    Promise.all([startClusterWorker(), startProcess(), startThread(), here, here]),
  );
  const kinds = ["a cluster's worker", "another process", "a thread", "this thread", "this thread once more"];
  let stores;

  before(async () => {
    const target = place.next();
    // The others use other paths to the same folder.
    const link = place.next();
    fs.symlinkSync(target, link);
    const ways = [
      target,
      link,
      path.relative(process.cwd(), target),
      `${target}/../${path.basename(target)}/`,
      link,
    ];
    stores = [];
    for (const [at, peer] of peers.entries()) stores.push(await peer.open({ path: ways[at] }));
  });

  for (const [writer, kind] of kinds.entries()) {
    it(`by ${kind} is immediately visible to all others`, async () => {
      const others = (call) => Promise.all(stores.map(call));
      const allSee = async (id, expected) => {
        for (const seen of await others((store) => store.get(id))) assert.deepEqual(seen, expected);
      };
      for (let round = 0; round < 20; round++) {
        const user = `user of ${writer}-${round}`;
        const one = session(`${writer}-${round}`, { userId: user });
        const twin = session(`${writer}-${round}-twin`, { userId: user, cart: ["a"] });
        const store = stores[writer];
        await store.create(one);
        await allSee(one.sessionId, one);
        await store.create(twin);
        const found = await others((other) => other.getByUser(user));
        assert.deepEqual(
          found,
          stores.map(() => [one, twin]),
        );
        const next = { ...one, cart: [round] };
        await store.update(one.sessionId, next);
        await allSee(one.sessionId, next);
        const expires = new Date(Date.now() + 7_200_000).toISOString();
        assert.equal(await store.touch(one.sessionId, expires), true);
        await allSee(one.sessionId, { ...next, expires });
        await store.delete(one.sessionId);
        await allSee(one.sessionId, null);
        assert.equal(await store.deleteByUser(user), 1);
        await allSee(twin.sessionId, null);
      }
    });
  }
});

describe("processes that start concurrently", { skip }, () => {
  const peers = startForAll(() => Promise.all(Array.from({ length: PROCESSES }, () => startProcess())));
  const openAll = (options) => {
    const moment = soon();
    return Promise.all(peers.map((peer) => peer.open(options, moment)));
  };
  const closeAll = (stores) => Promise.all(stores.map((store) => store.close()));

  for (const [what, secret] of [
    ["a store", undefined],
    ["an encrypted store", "a secret of some length"],
  ]) {
    it(`create ${what} that all of them share`, async () => {
      for (let round = 0; round < 30; round++) {
        // Its parent is missing, too.
        const stores = await openAll({ path: path.join(place.next(), "sessions"), secret });
        await Promise.all(stores.map((store, at) => store.create(session(`${at}`))));
        for (const ids of await Promise.all(stores.map((store) => store.idsOf()))) {
          assert.equal(ids.length, PROCESSES);
        }
        await closeAll(stores);
      }
    });
  }

  it("race for each id, and one of them wins it", async () => {
    const stores = await openAll({ path: place.next() });
    for (let round = 0; round < 5; round++) {
      const ids = Array.from({ length: 200 }, (_, at) => `${round}-${at}`);
      const moment = soon();
      const outcomes = await Promise.all(
        stores.map((store, by) =>
          store.callAll(
            "create",
            ids.map((id) => session(id, { userId: by })),
            moment,
          ),
        ),
      );
      for (const [at, id] of ids.entries()) {
        const codes = outcomes.map((codes) => codes[at]);
        const winner = codes.indexOf(null);
        assert.deepEqual(
          codes,
          stores.map((_, by) => (by === winner ? null : "ERR_SESSION_EXISTS")),
        );
        assert.equal((await stores[round].get(id)).userId, winner);
      }
    }
    await closeAll(stores);
  });

  it("write concurrently without losing anything", async () => {
    const stores = await openAll({ path: place.next() });
    const moment = soon();
    const outcomes = await Promise.all(
      stores.map((store, by) => {
        const mine = Array.from({ length: 1000 }, (_, at) => session(`${by}-${at}`, { userId: at % 10 }));
        return store.callAll("create", mine, moment);
      }),
    );
    assert.ok(outcomes.flat().every((code) => code === null));
    for (const store of stores) {
      assert.equal(await store.size(), 1000 * PROCESSES);
      assert.equal((await store.getByUser(7)).length, 100 * PROCESSES);
    }
    await closeAll(stores);
  });
});

describe("two stores of one path in one thread", { skip }, () => {
  it("are one store: closing one leaves the other working", async () => {
    const options = { path: place.next() };
    const [one, other] = [new FileStore(options), new FileStore(options)];
    await one.create(session("a"));
    await one.close();
    await assert.rejects(one.get("a"), { code: "ERR_STORE_CLOSED" });
    assert.equal((await other.get("a")).userId, "ann");
    await other.create(session("b"));
    await other.close();
  });

  it("must not have different options", async () => {
    const options = { path: place.next(), maxBytes: 2 ** 24, maxSessionsPerUser: 3, sweepInterval: 0 };
    const store = new FileStore(options);
    for (const other of [
      { maxBytes: 2 ** 25 },
      { maxSessionsPerUser: 4 },
      { sweepInterval: 1 },
      { maxSessionBytes: 10 },
    ]) {
      const [name] = Object.keys(other);
      assert.throws(() => new FileStore({ ...options, ...other }), {
        code: "ERR_INVALID_OPTION",
        message: new RegExp(name),
      });
    }
    await new FileStore({ path: options.path }).close();
    await store.close();
  });
});
