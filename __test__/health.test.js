"use strict";

// Whether a store can serve: `ready`, `ping`, and the state and calls in `stats`.

const assert = require("node:assert/strict");
const fs = require("node:fs");
const net = require("node:net");
const { after, before, describe, it } = require("node:test");
const { FileStore, MemoryStore, RedisStore, SessionStoreError } = require("..");
const { session } = require("./conformance.js");
const { makePlace, skip: notLinux } = require("./support/file-places.js");
const { makeRedisPlace } = require("./support/redis-places.js");
const {
  redisMissing,
  startServer,
  startTlsServer,
  tlsMissing,
  until,
} = require("./support/redis-servers.js");

const place = makePlace();
const redis = makeRedisPlace();
const cluster = makeRedisPlace("cluster");

const STORES = [
  { name: "MemoryStore", open: (options) => new MemoryStore(options), isQuick: ["get", "create", "touch"] },
  {
    name: "FileStore",
    open: (options) => new FileStore({ path: place.next(), ...options }),
    isQuick: ["get"],
  },
  { name: "RedisStore", open: (options) => redis.open(options), isQuick: [], skip: redisMissing },
  {
    name: "RedisStore of a cluster",
    open: (options) => cluster.open(options),
    isQuick: [],
    skip: redisMissing,
  },
];

const refusal = (promise) =>
  promise.then(
    () => assert.fail("it did not fail"),
    (error) => {
      assert.ok(error instanceof SessionStoreError, error.stack);
      return error;
    },
  );

for (const { name, open, isQuick, skip = false } of STORES) {
  describe(`a ${name} that serves`, { skip }, () => {
    let store;
    before(() => {
      store = open();
    });
    after(() => store.close());

    it("is ready, and reports how long the check took", async () => {
      assert.equal(await store.ready(), undefined);
      const millis = await store.ping({ timeout: 20_000 });
      assert.ok(millis >= 0 && millis < 20_000, `${millis} ms`);
      const { state, problem } = await store.stats();
      assert.deepEqual({ state, problem }, { state: "ready", problem: null });
    });

    it("refuses an invalid timeout", async () => {
      for (const timeout of [0, 1.5, -1, 2 ** 31, "1", null]) {
        const error = await refusal(store.ping({ timeout }));
        assert.equal(error.code, "ERR_INVALID_OPTION");
        assert.match(error.message, /^timeout must be a whole number of milliseconds/);
      }
      assert.equal(
        (await refusal(store.ready({ timeOut: 1 }))).message.includes("did you mean timeout"),
        true,
      );
    });

    it("counts calls, their errors and their latency", async () => {
      const counted = open();
      const [one, other] = [session(), session()];
      await counted.create(one);
      await counted.create(other);
      for (let call = 0; call < 130; call++) await counted.get(one.sessionId);
      await counted.touch(one.sessionId, Date.now() + 5_000_000);
      await counted.update(one.sessionId, one);
      await counted.delete(other.sessionId);
      await counted.getByUser("ann");
      await counted.deleteByUser("ann");
      await counted.size();
      await counted.clean();
      await counted.clear();
      await counted.ping();
      await refusal(counted.create({}));
      await counted.create(one);
      const twice = await refusal(counted.create(one));
      assert.equal(twice.code, "ERR_SESSION_EXISTS");
      const { calls, errors, pending } = await counted.stats();
      const counts = Object.fromEntries(Object.entries(calls).map(([call, { count }]) => [call, count]));
      assert.deepEqual(counts, {
        get: 130,
        create: 5,
        update: 1,
        touch: 1,
        delete: 1,
        clean: 1,
        getByUser: 1,
        deleteByUser: 1,
        size: 1,
        ids: 0,
        sessions: 0,
        clear: 1,
        ping: 1,
      });
      assert.deepEqual(errors, { ERR_INVALID_SESSION: 1, ERR_SESSION_EXISTS: 1 });
      assert.deepEqual(calls.create.errors, errors);
      assert.deepEqual(calls.get.errors, {});
      assert.equal(pending, 0);
      for (const [call, { count, latency }] of Object.entries(calls)) {
        const failed = call === "create" ? 2 : 0;
        const measured = isQuick.includes(call) ? Math.ceil(count / 64) : count - failed;
        if (!isQuick.includes("create") || !["update", "delete"].includes(call)) {
          assert.equal(latency.count, measured, call);
        }
        const bounds = latency.buckets.map(({ le }) => le);
        assert.deepEqual(
          bounds,
          [...bounds].sort((one, other) => one - other),
        );
        const inBuckets = latency.buckets.map((bucket) => bucket.count);
        assert.deepEqual(
          inBuckets,
          [...inBuckets].sort((one, other) => one - other),
        );
        assert.ok(inBuckets.at(-1) <= latency.count);
        assert.ok(latency.count === 0 ? latency.sum === 0 : latency.sum > 0);
      }
      await counted.close();
    });

    it("does not count a call without a store", async () => {
      const { get } = store;
      await assert.rejects(get("a"), TypeError);
    });

    it("rejects once it is closed", async () => {
      const closed = open();
      await closed.close();
      for (const call of [closed.ping(), closed.ready(), closed.stats()]) {
        assert.equal((await refusal(call)).code, "ERR_STORE_CLOSED");
      }
    });
  });
}

describe("calls of a FileStore that wait", () => {
  it("are counted as pending, with their bytes", async () => {
    const store = new FileStore({ path: place.next() });
    const writes = [session(), session(), session()].map((one) => store.create(one));
    const { pending, queuedBytes, maxQueuedBytes } = await store.stats();
    assert.equal(pending, 3);
    assert.ok(queuedBytes > 0 && queuedBytes < maxQueuedBytes, `${queuedBytes} of ${maxQueuedBytes}`);
    await Promise.all(writes);
    await store.ping();
    assert.deepEqual([(await store.stats()).pending, (await store.stats()).queuedBytes], [0, 0]);
    await store.close();
  });
});

describe("a FileStore that cannot serve", () => {
  it("reports that its folder is gone", { skip: notLinux }, async () => {
    const store = new FileStore({ path: place.next(), sweepInterval: 0 });
    await store.create(session());
    await store.ready();
    fs.renameSync(store.db.path, `${store.db.path}-moved`);
    const error = await refusal(store.ping());
    assert.equal(error.code, "ERR_STORE_IO");
    const { state, problem } = await store.stats().catch(() => ({ state: "unavailable", problem: error }));
    assert.deepEqual([state, problem.code], ["unavailable", "ERR_STORE_IO"]);
    await store.close();
  });

  it("reports that maxBytes is reached", async () => {
    const store = new FileStore({ path: place.next(), maxBytes: 2 ** 20, sweepInterval: 0 });
    await store.ready();
    let isFull = false;
    while (!isFull) {
      const writes = Array.from({ length: 50 }, () => store.create(session({ data: "x".repeat(3000) })));
      isFull = (await Promise.allSettled(writes)).some(({ reason }) => reason?.code === "ERR_STORE_FULL");
    }
    await store.deleteByUser("ann");
    assert.ok((await store.ping()) >= 0);
    assert.ok((await store.stats()).errors.ERR_STORE_FULL > 0);
    await store.close();
  });

  it("is read-only, and can be read", async () => {
    const writable = new FileStore({ path: place.next() });
    await writable.create(session());
    await writable.close();
    const store = new FileStore({ path: writable.db.path, readOnly: true });
    await store.ready();
    assert.equal((await store.stats()).state, "ready");
    await store.close();
  });

  it("reports that the disk does not answer in time", async () => {
    const native = require("../lib/native.js");
    const { ping } = native;
    const store = new FileStore({ path: place.next() });
    native.ping = () => new Promise(() => {});
    try {
      const error = await refusal(store.ping({ timeout: 5 }));
      assert.equal(error.code, "ERR_STORE_TIMEOUT");
      assert.match(error.message, /did not answer within 5 ms/);
    } finally {
      native.ping = ping;
    }
    await store.close();
  });
});

/** Returns a port without a listener. */
async function freePort() {
  const server = net.createServer().listen(0, "127.0.0.1");
  await new Promise((resolve) => server.once("listening", resolve));
  const { port } = server.address();
  await new Promise((resolve) => server.close(resolve));
  return port;
}

describe("a RedisStore that cannot serve reports why:", { skip: redisMissing }, () => {
  const servers = [];
  const start = async (begin, options) => {
    const server = await begin(options);
    servers.push(server);
    return server;
  };
  after(() => Promise.all(servers.map((server) => server.kill())));

  // A handshake with a server without TLS ends only by the timeout.
  const BRIEF = { sweepInterval: 0, commandTimeout: 900, connectTimeout: 300 };

  const CASES = [
    {
      reason: "authentication",
      words: /WRONGPASS|invalid/,
      url: async () => {
        const { port } = await start(startServer, { password: "right" });
        return `redis://:wr0ng@127.0.0.1:${port}`;
      },
    },
    { reason: "dns", words: /DNS: /, url: async () => "redis://no-such-host.invalid:6379" },
    {
      reason: "refused",
      words: /connection refused/,
      url: async () => `redis://127.0.0.1:${await freePort()}`,
    },
    {
      reason: "tls",
      words: /no TLS/,
      skip: tlsMissing,
      url: async () => `rediss://127.0.0.1:${(await start(startTlsServer)).port}`,
    },
    {
      reason: "tls",
      words: /no TLS/,
      url: async () => `rediss://127.0.0.1:${(await start(startServer)).port}`,
    },
    {
      reason: "not-primary",
      words: /is a replica, and no primary/,
      state: "ready",
      url: async () => {
        const primary = await start(startServer);
        const replica = await start(startServer);
        await replica.call("REPLICAOF", "127.0.0.1", String(primary.port));
        return `redis://127.0.0.1:${replica.port}`;
      },
    },
  ];

  for (const { reason, words, state = "connecting", skip = false, url } of CASES) {
    it(`${reason}, ${words}`, { skip }, async () => {
      const store = new RedisStore({ url: await url(), ...BRIEF });
      for (const error of [await refusal(store.ping()), await refusal(store.ready({ timeout: 600 }))]) {
        assert.equal(error.code, "ERR_STORE_UNAVAILABLE", error.message);
        assert.equal(error.reason, reason, error.message);
        assert.match(error.message, words);
        assert.equal(error.outcome, undefined);
      }
      const stats = await store.stats();
      assert.equal(stats.state, state);
      if (state === "connecting") {
        const { code, reason: kept, message } = stats.problem;
        assert.deepEqual([code, kept], ["ERR_STORE_UNAVAILABLE", reason]);
        assert.match(message, words);
        assert.ok(stats.connections.failures > 0);
        const error = await refusal(store.get("a"));
        assert.deepEqual([error.code, error.reason], ["ERR_STORE_UNAVAILABLE", reason]);
      }
      assert.equal(stats.errors.ERR_STORE_UNAVAILABLE, 2);
      await store.close();
    });
  }

  it("becomes ready when the server starts, and reports when it stops", async () => {
    const server = await start(startServer);
    const store = new RedisStore({ url: server.url, sweepInterval: 0, commandTimeout: 20_000 });
    await store.ready();
    const { connections } = await store.stats();
    assert.deepEqual(connections, { connects: 1, disconnects: 0, failures: 0, retries: connections.retries });
    await server.kill();
    await until(async () => (await store.stats()).state === "unavailable", "it is known to be gone");
    const { problem, connections: lost } = await store.stats();
    assert.equal(problem.code, "ERR_STORE_UNAVAILABLE");
    assert.match(problem.message, /no connection to 127\.0\.0\.1/);
    assert.equal(lost.disconnects, 1);
    const waiting = store.ready({ timeout: 60_000 });
    await server.start();
    await waiting;
    const { state, connections: again } = await store.stats();
    assert.deepEqual([state, again.connects], ["ready", 2]);
    await store.close();
  });
});
