"use strict";

// The near cache of a RedisStore. Above all, an ended session must not stay visible.

const assert = require("node:assert/strict");
const { fork } = require("node:child_process");
const { once } = require("node:events");
const path = require("node:path");
const { after, before, describe, it } = require("node:test");
const { RedisStore } = require("..");
const { session } = require("./conformance.js");
const {
  redisMissing,
  startCluster,
  startProxy,
  startSentinels,
  startServer,
  startTlsServer,
  tlsMissing,
  until,
} = require("./support/redis-servers.js");

const CHILD = path.join(__dirname, "support/redis/ending-process.js");
// A fixture of few rounds: the bench has ten thousand.
const ROUNDS = 200;
const PATIENCE = 10_000;
const LONGEST_STALENESS = 60_000;

let counter = 0;
const open = ({ cache = { maxStaleness: LONGEST_STALENESS }, ...options }) =>
  new RedisStore({ commandTimeout: PATIENCE, sweepInterval: 0, cache, ...options });
const withoutCache = (options) => new RedisStore({ commandTimeout: PATIENCE, sweepInterval: 0, ...options });
const prefix = () => `cache ${counter++}:`;

const hitsOf = async (store) => (await store.stats()).cache.hits;

/** Whether the next `get` is answered from the cache. */
async function isHit(store, id) {
  const before = await hitsOf(store);
  await store.get(id);
  return (await hitsOf(store)) > before;
}

/** Caches a session, once the store has the necessary connection. */
async function load(store, id) {
  await until(() => isHit(store, id), "it is cached");
}

/** Resolves once the server's messages about earlier changes have arrived. */
const roundTrip = (store) => store.get("nobody");

async function withStores(stores, use) {
  try {
    await use(...stores);
  } finally {
    await Promise.all(stores.map((store) => store.close()));
  }
}

describe("the cache of a RedisStore", { skip: redisMissing }, () => {
  let server;
  let options;
  before(async () => {
    server = await startServer();
    options = { url: server.url };
  });
  after(() => server?.kill());

  const pair = (given) => {
    const place = { ...options, prefix: prefix(), ...given };
    return [open(place), withoutCache(place)];
  };

  const getsOf = async () => {
    const { cmdstat_get = "calls=0" } = await server.info("commandstats");
    return Number(/calls=(\d+)/.exec(cmdstat_get)[1]);
  };

  it("answers without the server, and with fresh copies", async () => {
    for (const secret of [undefined, "a secret of some length"]) {
      await withStores(pair({ ...(secret && { secret }) }), async (store, other) => {
        const one = session({ cart: { items: [1] } });
        await other.create(one);
        await load(store, one.sessionId);
        const before = await getsOf();
        for (let at = 0; at < 1000; at++) {
          const found = await store.get(one.sessionId);
          assert.deepEqual(found, one);
          found.cart.items.push(2);
        }
        // The store checks its wrapped keys once a second.
        assert.ok((await getsOf()) - before < 50, "it has asked the server");
        const { cache, hits } = await store.stats();
        assert.equal(cache.off, null);
        assert.equal(cache.sessions, 1);
        assert.ok(cache.hits >= 1000 && hits >= 1000 && cache.bytes > 0);
      });
    }
  });

  it("sees all kinds of changes by others", async () => {
    await withStores(pair(), async (store, other) => {
      const one = session({ number: 0 });
      const { sessionId: id, userId } = one;
      const expires = new Date(Date.now() + 7_200_000).toISOString();
      const changes = [
        [() => other.update(id, { ...one, number: 1 }), (found) => found.number === 1],
        [() => other.touch(id, expires), (found) => found.expires === expires],
        [() => other.delete(id), (found) => found === null],
        [() => other.deleteByUser(userId), (found) => found === null],
        [() => other.clear(), (found) => found === null],
        [() => server.call("FLUSHALL"), (found) => found === null],
        [() => server.call("DEL", `${other.db.prefix}sess#${id}`), (found) => found === null],
        [() => other.touch(id, new Date(Date.now() - 1)), (found) => found === null],
      ];
      for (const [change, isSeen] of changes) {
        await other.delete(id);
        await other.create(one);
        await roundTrip(store);
        await load(store, id);
        await change();
        await roundTrip(store);
        assert.ok(isSeen(await store.get(id)), String(change));
      }
    });
  });

  // With NOLOOP, an own write ends the server's tracking of the session. A cached copy would never be invalidated.
  it("tracks a session again after its own write", async () => {
    await withStores(pair(), async (store, other) => {
      const one = session({ number: 0 });
      const { sessionId: id } = one;
      await store.create(one);
      for (const own of [
        () => store.update(id, { ...one, number: 2 }),
        () => store.touch(id, one.expires),
        () => store.update(id, { ...one, userId: "another" }),
      ]) {
        await load(store, id);
        await own();
        await load(store, id);
        await other.update(id, { ...one, number: 3 });
        await roundTrip(store);
        assert.equal((await store.get(id)).number, 3, String(own));
      }
    });
  });

  it("sees its own calls from their start", async () => {
    await withStores(pair({ maxSessionsPerUser: 2 }), async (store) => {
      const one = session({ number: 0 });
      const { sessionId: id, userId } = one;
      for (let round = 1; round <= ROUNDS; round++) {
        await store.create({ ...one, number: 0 });
        await store.get(id);
        await store.get(id);
        const [, found] = await Promise.all([store.update(id, { ...one, number: round }), store.get(id)]);
        assert.equal(found.number, round);
        const ends = [
          () => store.delete(id),
          () => store.deleteByUser(userId),
          () => store.clear(),
          async () => {
            await store.create(session({ userId }));
            await store.create(session({ userId }));
          },
        ];
        await store.get(id);
        const reading = store.get(id);
        await ends[round % ends.length]();
        assert.equal(await store.get(id), null, `after end ${round % ends.length}`);
        await reading;
        await store.clear();
      }
    });
  });

  it("never returns a session after its expiry", async () => {
    await withStores(pair(), async (store, other) => {
      const end = Date.now() + 300;
      const one = session({ expires: new Date(end).toISOString() });
      await other.create(one);
      await load(store, one.sessionId);
      for (let found = one; found !== null; ) {
        const began = Date.now();
        found = await store.get(one.sessionId);
        assert.ok(found === null || began < end, `it was there ${began - end} ms after its end`);
      }
    });
  });

  it("respects maxBytes, and keeps recently used sessions", async () => {
    const maxBytes = 2 ** 20;
    await withStores(pair({ cache: { maxBytes, maxStaleness: LONGEST_STALENESS } }), async (store, other) => {
      const text = "x".repeat(2000);
      const sessions = Array.from({ length: 1000 }, () => session({ text }));
      await Promise.all(sessions.map((one) => other.create(one)));
      const [{ sessionId: used }] = sessions;
      await load(store, used);
      for (const { sessionId } of sessions) {
        await store.get(sessionId);
        for (let at = 0; at < 10; at++) await store.get(used);
        const { bytes } = (await store.stats()).cache;
        assert.ok(bytes <= maxBytes, `${bytes} bytes`);
      }
      const { cache } = await store.stats();
      assert.ok(cache.sessions > 300 && cache.sessions < 600, `${cache.sessions} sessions`);
      assert.ok(cache.bytes > maxBytes / 2);
      assert.ok(await isHit(store, used), "a session that was in use has gone");
    });
  });

  it("sees a logout in another process after one round trip, with concurrent reads", async () => {
    const child = fork(CHILD);
    try {
      await withStores(pair(), async (store, other) => {
        child.send({ options, prefix: store.db.prefix });
        await once(child, "message");
        for (let round = 0; round < ROUNDS; round++) {
          const { sessionId } = await createdBy(other);
          await store.get(sessionId);
          child.send(sessionId);
          const isEnded = once(child, "message");
          let isOver = false;
          isEnded.then(() => {
            isOver = true;
          });
          // Hits, and loads that race with the end.
          while (!isOver) await Promise.all([store.get(sessionId), new Promise(setImmediate)]);
          await roundTrip(store);
          assert.equal(await store.get(sessionId), null, `round ${round}`);
        }
        assert.ok((await hitsOf(store)) > ROUNDS);
      });
    } finally {
      child.kill();
    }
  });

  async function createdBy(store) {
    const one = session();
    await store.create(one);
    return one;
  }

  it("lags by at most maxStaleness when the network holds all messages back", async () => {
    const maxStaleness = 250;
    for (const hold of [(proxy) => proxy.goDark(), (proxy) => proxy.delay(4 * maxStaleness)]) {
      const proxy = await startProxy(server);
      const place = { prefix: prefix() };
      const store = open({ ...place, url: proxy.url, cache: { maxStaleness }, commandTimeout: 2000 });
      await withStores([store, withoutCache({ ...options, ...place })], async (near, other) => {
        const one = session();
        await other.create(one);
        await load(near, one.sessionId);
        hold(proxy);
        await other.delete(one.sessionId);
        const endedAt = performance.now();
        let last;
        for (;;) {
          const began = performance.now();
          const found = await near.get(one.sessionId).catch((error) => error);
          // A call that waits for the server may have started in time.
          if (!found?.sessionId) break;
          last = began;
          await new Promise(setImmediate);
        }
        assert.ok(last !== undefined, "it was not cached");
        assert.ok(last - endedAt <= maxStaleness, `it was seen ${last - endedAt} ms later`);
      });
      await proxy.close();
    }
  });

  it("returns nothing if a server is stopped for longer than maxStaleness", async () => {
    const own = await startServer();
    const store = open({ url: own.url, cache: { maxStaleness: 100 }, commandTimeout: 500 });
    await withStores([store], async (near) => {
      const one = session();
      await near.create(one);
      await load(near, one.sessionId);
      await own.pause();
      const stoppedAt = performance.now();
      await assert.rejects(
        async () => {
          for (;;) {
            const began = performance.now();
            await near.get(one.sessionId);
            assert.ok(began - stoppedAt <= 100, "it was seen for longer");
            await new Promise(setImmediate);
          }
        },
        { code: "ERR_STORE_TIMEOUT" },
      );
      own.resume();
      await load(near, one.sessionId);
    });
    await own.kill();
  });

  it("drops everything when a connection is cut", async () => {
    const proxy = await startProxy(server);
    const place = { prefix: prefix() };
    const stores = [open({ ...place, url: proxy.url }), withoutCache({ ...options, ...place })];
    await withStores(stores, async (store, other) => {
      const one = await createdBy(other);
      await load(store, one.sessionId);
      await proxy.refuse();
      await other.delete(one.sessionId);
      await until(async () => (await store.stats()).cache.sessions === 0, "the cut is seen");
      await proxy.heal();
      await until(
        () =>
          store.get(one.sessionId).then(
            (found) => found === null,
            () => false,
          ),
        "it is back",
      );
      const another = await createdBy(other);
      await load(store, another.sessionId);
    });
    await proxy.close();
  });

  it("keeps the thread's event loop free and lets the process end", async () => {
    await withStores(pair(), async (store, other) => {
      const one = await createdBy(other);
      await load(store, one.sessionId);
      // Replies arrive even if all calls are hits.
      let isBack = false;
      const away = store.get("nobody").then(() => {
        isBack = true;
      });
      while (!isBack) await Promise.all([store.get(one.sessionId), new Promise(setImmediate)]);
      await away;
    });
  });

  it("is off if the server does not send invalidations, and reports why", async () => {
    const own = await startServer({ users: { app: "on >secret ~* +@all -client|tracking" } });
    const warnings = [];
    process.on("warning", (warning) => warnings.push(warning));
    const store = open({ url: own.url.replace("//", "//app:secret@") });
    await withStores([store], async (near) => {
      const one = session();
      await near.create(one);
      await until(() => warnings.length > 0, "it warns");
      const [warning] = warnings;
      assert.equal(warning.code, "NATIVE_STORE_CACHE_OFF");
      assert.match(
        warning.message,
        /^RedisStore goes without its cache: the server refused CLIENT TRACKING: NOPERM/,
      );
      for (let at = 0; at < 3; at++) assert.deepEqual(await near.get(one.sessionId), one);
      const { cache } = await near.stats();
      assert.equal(cache.hits, 0);
      assert.match(cache.off, /CLIENT TRACKING/);
    });
    await own.kill();
  });

  it("works with waitReplicas, for reads", async () => {
    const place = { ...options, prefix: prefix() };
    const stores = [open({ ...place, waitReplicas: 1, commandTimeout: 1000 }), withoutCache(place)];
    await withStores(stores, async (store, other) => {
      const one = await createdBy(other);
      await load(store, one.sessionId);
      // There is no replica.
      await assert.rejects(store.update(one.sessionId, { ...one, number: 1 }), { outcome: "unknown" });
      assert.equal((await store.get(one.sessionId)).number, 1);
      await load(store, one.sessionId);
    });
  });

  it("works over TLS", { skip: tlsMissing }, async () => {
    const own = await startTlsServer();
    const place = { url: own.url, tls: { ca: own.certificates.ca }, prefix: prefix() };
    await withStores([open(place), withoutCache(place)], async (store, other) => {
      const one = await createdBy(other);
      await load(store, one.sessionId);
      await other.delete(one.sessionId);
      await roundTrip(store);
      assert.equal(await store.get(one.sessionId), null);
    });
    await own.kill();
  });

  it("works in a cluster, and is dropped when a slot moves or a primary is lost", async () => {
    const cluster = await startCluster();
    const place = { cluster: cluster.urls, prefix: prefix() };
    await withStores([open(place), withoutCache(place)], async (store, other) => {
      const sessions = await Promise.all(Array.from({ length: 60 }, () => createdBy(other)));
      for (const { sessionId } of sessions) await load(store, sessionId);
      assert.equal((await store.stats()).cache.sessions, 60);
      for (const { sessionId } of sessions.slice(0, 30)) await other.delete(sessionId);
      // One for each primary.
      await Promise.all(Array.from({ length: 60 }, (_, at) => store.get(`nobody ${at}`)));
      for (const [at, { sessionId }] of sessions.entries()) {
        assert.equal((await store.get(sessionId)) === null, at < 30);
      }
      await store.deleteByUser(sessions[0].userId);
      for (const { sessionId } of sessions) assert.equal(await store.get(sessionId), null);
    });
    await cluster.stop();
  });

  it("is dropped by a failover that sentinels report", async () => {
    const all = await startSentinels();
    const place = { sentinel: { urls: all.urls, master: all.master }, prefix: prefix() };
    await withStores([open(place), withoutCache(place)], async (store, other) => {
      const one = await createdBy(other);
      await load(store, one.sessionId);
      const old = await all.primary();
      // It still acts as a primary, answers, and does not receive the writes of its successor.
      await old.call("ACL", "SETUSER", "default", "-slaveof", "-replicaof");
      const { switched } = await all.nextPrimary();
      await all.sentinels[0].call("SENTINEL", "FAILOVER", all.master);
      const port = await switched;
      const next = all.servers.find((each) => each.port === port);
      await next.call("DEL", `${place.prefix}sess#${one.sessionId}`);
      // The store leaves the old one when it learns of the other. Replies of the old one no longer count.
      await until(async () => {
        const { sessionId } = await createdBy(store);
        return (await next.call("EXISTS", `${place.prefix}sess#${sessionId}`)) === 1;
      }, "it writes to the next one");
      assert.equal(await store.get(one.sessionId), null);
      await old.call("ACL", "SETUSER", "default", "+slaveof", "+replicaof");
    });
    await all.stop();
  });
});
