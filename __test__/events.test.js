"use strict";

// The events of the stores on diagnostics channels: `docs/operating.md` lists them.

const assert = require("node:assert/strict");
const { execFile } = require("node:child_process");
const { createHash } = require("node:crypto");
const diagnostics = require("node:diagnostics_channel");
const { once } = require("node:events");
const fs = require("node:fs");
const path = require("node:path");
const { afterEach, describe, it } = require("node:test");
const { promisify } = require("node:util");
const { Worker } = require("node:worker_threads");
const { FileStore, MemoryStore, RedisStore } = require("..");
const { ConnectStore } = require("../connect.js");
const native = require("../lib/native.js");
const { session } = require("./conformance.js");
const { makePlace, skip: notLinux } = require("./support/file-places.js");
const { bulk, list, startFakeServer } = require("./support/redis/fake-server.js");
const { makeRedisPlace } = require("./support/redis-places.js");
const { redisMissing, startServer, until } = require("./support/redis-servers.js");

const ROOT = path.join(__dirname, "..");
const SECRET = "a secret of some length";
const place = makePlace();
const redis = makeRedisPlace();
const cluster = makeRedisPlace("cluster");
const run = promisify(execFile);

const hashOf = (id) => createHash("sha256").update(id).digest("hex").slice(0, 16);
const past = () => new Date(Date.now() - 1000).toISOString();

/** Collects the events of a channel until the test ends, of one store if it is given. */
const subscriptions = [];
function listen(name, store) {
  const heard = [];
  const hear = (message, channel) => {
    assert.equal(channel, `native-store:${name}`);
    if (store !== undefined && message.store !== store.db) return;
    heard.push(message);
  };
  diagnostics.subscribe(`native-store:${name}`, hear);
  subscriptions.push(() => diagnostics.unsubscribe(`native-store:${name}`, hear));
  return heard;
}
afterEach(() => {
  for (const unsubscribe of subscriptions.splice(0)) unsubscribe();
});

const count = (events) => events.reduce((sum, event) => sum + event.count, 0);

/** Resolves to the events once `count` sessions have ended, as `[reason, hash, user, count]`. */
async function untilEnded(heard, sessions) {
  await until(() => count(heard) >= sessions, `${sessions} ends are heard of, not ${count(heard)}`, 20_000);
  assert.equal(count(heard), sessions);
  return heard.map(({ reason, id, userId, count: each }) => [reason, id, userId, each]);
}

const STORES = [
  { name: "MemoryStore", open: (options) => new MemoryStore(options) },
  { name: "MemoryStore with limits", open: (options) => new MemoryStore({ maxBytes: 1e9, ...options }) },
  { name: "FileStore", open: (options) => new FileStore({ path: place.next(), ...options }) },
  {
    name: "FileStore with a secret",
    open: (options) => new FileStore({ path: place.next(), secret: SECRET, ...options }),
  },
  {
    // Too small for a log.
    name: "FileStore without a log",
    open: (options) => new FileStore({ path: place.next(), maxBytes: 2 ** 24, ...options }),
  },
  { name: "RedisStore", open: (options) => redis.open(options), isRemote: true, skip: redisMissing },
  {
    name: "RedisStore of a cluster, with a secret",
    open: (options) => cluster.open({ secret: SECRET, ...options }),
    isRemote: true,
    skip: redisMissing,
  },
];

for (const { name, open, isRemote = false, skip = false } of STORES) {
  describe(`a ${name} publishes`, { skip }, () => {
    let store;
    const opened = (options) => {
      store = open({ sweepInterval: 0, ...options });
      return store;
    };
    afterEach(() => store.close());

    it("that a session was deleted, once, without its content", async () => {
      const heard = listen("session:end", opened());
      const one = session({ userId: { n: [1, "é"] }, word: "private" });
      await store.create(one);
      await store.delete("nobody");
      await store.delete(one.sessionId);
      await store.delete(one.sessionId);
      const userId = { n: [1, "é"] };
      assert.deepEqual(await untilEnded(heard, 1), [["deleted", hashOf(one.sessionId), userId, 1]]);
      assert.equal(heard[0].store, store.db);
      const text = JSON.stringify(heard);
      assert.ok(!text.includes(one.sessionId) && !text.includes("private"), text);
    });

    it("that the sessions of a user were revoked", async () => {
      const heard = listen("session:end", opened());
      const mine = [session({ userId: 42 }), session({ userId: 42 }), session({ userId: 42 })];
      for (const one of [...mine, session({ userId: "42" })]) await store.create(one);
      assert.equal(await store.deleteByUser("nobody"), 0);
      assert.equal(await store.deleteByUser(42, { except: mine[0].sessionId }), 2);
      const ended = await untilEnded(heard, 2);
      const named = mine.slice(1).map(({ sessionId }) => ["revoked", hashOf(sessionId), 42, 1]);
      const byId = (a, b) => (a[1] < b[1] ? -1 : 1);
      assert.deepEqual(ended.sort(byId), isRemote ? [["revoked", null, 42, 2]] : named.sort(byId));
    });

    it("that a user's oldest session was replaced", async () => {
      const heard = listen("session:end", opened({ maxSessionsPerUser: 1 }));
      const [older, newer] = [session(), session()];
      await store.create(older);
      await store.create(newer);
      const named = isRemote ? ["replaced", null, null, 1] : ["replaced", hashOf(older.sessionId), "ann", 1];
      assert.deepEqual(await untilEnded(heard, 1), [named]);
    });

    it("a sweep, and the sessions that it removed", async () => {
      const [ends, sweeps] = [listen("session:end", opened()), listen("sweep", store)];
      const old = [session({ expires: past() }), session({ expires: past(), userId: null })];
      if (!isRemote) for (const one of old) await store.create(one);
      await store.create(session());
      await store.clean();
      await until(() => sweeps.length > 0, "a sweep is heard of");
      const { at, duration, removed, error } = sweeps[0];
      assert.ok(at instanceof Date && duration >= 0);
      assert.deepEqual([removed, error], [isRemote ? 0 : 2, null]);
      if (isRemote) return assert.deepEqual(ends, []);
      const named = [
        ["expired", hashOf(old[0].sessionId), "ann", 1],
        ["expired", hashOf(old[1].sessionId), null, 1],
      ];
      assert.deepEqual((await untilEnded(ends, 2)).sort(), named.sort());
    });

    it("that all sessions were cleared", async () => {
      const heard = listen("session:end", opened());
      for (const one of [session(), session()]) await store.create(one);
      await store.clear();
      await until(() => heard.length > 0, "the end is heard of");
      const [{ reason, id, count: all }, ...others] = heard;
      assert.deepEqual([reason, id, all, others], ["cleared", null, isRemote ? null : 2, []]);
    });

    it("that ConnectStore did not revive a session", async () => {
      const connect = new ConnectStore(opened(), { prefix: "p:", userId: ({ user }) => user });
      const heard = listen("write:dropped", store);
      const cookie = { originalMaxAge: 60_000, expires: new Date(Date.now() + 60_000) };
      await connect.set("one", { cookie, user: 7 });
      const loaded = await connect.get("one");
      await connect.set("one", { ...loaded, n: 1 });
      assert.deepEqual(heard, []);
      const stale = await connect.get("one");
      await store.delete("p:one");
      stale.n = 2;
      await connect.set("one", stale);
      const [{ reason, id, userId, store: of }] = heard;
      assert.deepEqual([reason, id, userId, of], ["ended", hashOf("p:one"), 7, store.db]);
      assert.equal(heard.length, 1);
      // Not the object that the request has loaded.
      await assert.rejects(connect.set("one", { cookie, user: 8 }), { code: "ERR_SESSION_ENDED" });
      assert.deepEqual([heard.length, heard[1].userId], [2, 8]);
      assert.equal(await store.get("p:one"), null);
    });

    it("that ConnectStore did not give an ended session another cookie", async () => {
      const connect = new ConnectStore(opened());
      const heard = listen("write:dropped", store);
      const cookie = (millis) => ({ originalMaxAge: millis, expires: new Date(Date.now() + millis) });
      await connect.set("one", { cookie: cookie(60_000) });
      const loaded = await connect.get("one");
      await connect.touch("one", { ...loaded, cookie: cookie(50_000) });
      assert.deepEqual(heard, []);
      const stale = await connect.get("one");
      await store.delete("one");
      stale.cookie = cookie(40_000);
      await connect.touch("one", stale);
      assert.deepEqual(
        heard.map(({ reason, id, userId }) => [reason, id, userId]),
        [["ended", hashOf("one"), null]],
      );
    });

    it("later events after some were lost", async () => {
      const heard = listen("session:end", opened());
      const warnings = [];
      const warned = ({ code }) => warnings.push(code);
      process.on("warning", warned);
      const { takeEvents } = native;
      native.takeEvents = (...args) => {
        native.takeEvents = takeEvents;
        takeEvents(...args);
        throw new Error("a call panicked");
      };
      try {
        const [lost, other] = [session(), session()];
        await store.create(lost);
        await store.delete(lost.sessionId);
        await until(() => warnings.length > 0, "a warning");
        await store.create(other);
        await store.delete(other.sessionId);
        assert.deepEqual(await untilEnded(heard, 1), [["deleted", hashOf(other.sessionId), "ann", 1]]);
        assert.deepEqual(warnings, ["NATIVE_STORE_EVENTS_LOST"]);
      } finally {
        native.takeEvents = takeEvents;
        process.off("warning", warned);
      }
    });

    it("no errors of the caller, and nothing without a subscriber", async () => {
      const errors = listen("store:error", opened());
      const one = session();
      await store.create(one);
      await assert.rejects(store.create(one));
      await assert.rejects(store.get(7));
      assert.deepEqual(errors, []);
      await store.delete(one.sessionId);
      await store.clean();
      // Earlier events would arrive first.
      const ends = listen("session:end", store);
      const other = session();
      await store.create(other);
      await store.delete(other.sessionId);
      const [[reason, id]] = await untilEnded(ends, 1);
      assert.deepEqual([reason, id], ["deleted", hashOf(other.sessionId)]);
    });
  });
}

describe("without a subscriber", () => {
  it("the addon collects nothing, and stops when the last subscriber is gone", async () => {
    const { listen: original } = native;
    const topics = [];
    native.listen = (store, wanted, signal) => {
      topics.push(wanted);
      return original(store, wanted, signal);
    };
    const store = new MemoryStore();
    try {
      await store.create(session());
      await store.clean();
      assert.deepEqual(topics, []);
      listen("sweep", store);
      listen("session:end", store);
      await store.create(session());
      await store.create(session());
      assert.deepEqual(topics, [3]);
      for (const unsubscribe of subscriptions.splice(0)) unsubscribe();
      await store.create(session());
      assert.deepEqual(topics, [3, 0]);
    } finally {
      native.listen = original;
    }
    await store.close();
  });
});

describe("a full MemoryStore", () => {
  it("publishes evictions, and errors of sessions that are too large", async () => {
    const store = new MemoryStore({ maxSessions: 1, maxBytes: 10_000, sweepInterval: 0 });
    const [ends, errors] = [listen("session:end", store), listen("store:error", store)];
    const [visitor, user] = [session({ userId: null }), session()];
    await store.create(visitor);
    await store.create(user);
    assert.deepEqual(await untilEnded(ends, 1), [["evicted", hashOf(visitor.sessionId), null, 1]]);
    const error = await store.create(session({ data: "x".repeat(20_000) })).catch((refused) => refused);
    const [{ call, code, message, error: told, store: of }] = errors;
    assert.deepEqual(
      [call, code, message, told, of],
      ["create", "ERR_STORE_FULL", error.message, error, store.db],
    );
    await store.close();
  });
});

describe("very many sessions that end together", () => {
  const MANY = 100_000;

  it("are all counted, and named as far as there is room", async () => {
    const store = new MemoryStore({ sweepInterval: 0 });
    const heard = listen("session:end", store);
    const userId = "ann";
    for (let at = 0; at < MANY; at++) await store.create(session({ userId }));
    assert.equal(await store.deleteByUser(userId), MANY);
    await until(() => count(heard) === MANY, "all are heard of", 120_000);
    assert.ok(
      heard.every(({ reason, id, count: each }) => reason === "revoked" && (id === null || each === 1)),
    );
    assert.ok(heard.length > 4096 && heard.length < MANY, `${heard.length} events`);
    assert.equal(new Set(heard.map(({ id }) => id)).size, heard.filter(({ id }) => id !== null).length + 1);
    await store.close();
  });
});

describe("two store objects of one store", () => {
  it("publish once in a thread, also after one of them is closed", async () => {
    const folder = place.next();
    const [one, twin] = [new FileStore({ path: folder }), new FileStore({ path: folder })];
    const heard = listen("session:end");
    const end = async (by) => {
      const gone = session();
      await by.create(gone);
      await twin.delete(gone.sessionId);
      return gone.sessionId;
    };
    const first = await end(one);
    await until(() => heard.length > 0, "it is heard of");
    await one.close();
    const second = await end(twin);
    await until(() => heard.length > 1, "it is heard of too");
    assert.deepEqual([heard.map(({ id }) => id), count(heard)], [[hashOf(first), hashOf(second)], 2]);
    await twin.close();
  });

  it("publish in each subscribed thread", async () => {
    const name = "events of two threads";
    const store = new MemoryStore({ name });
    const heard = listen("session:end", store);
    await store.size();
    const worker = new Worker(
      `const { MemoryStore } = require(${JSON.stringify(ROOT)});
       const { parentPort } = require("node:worker_threads");
       const store = new MemoryStore({ name: ${JSON.stringify(name)} });
       require("node:diagnostics_channel").subscribe("native-store:session:end", ({ reason, id, store: { name } }) => {
         parentPort.postMessage([reason, id, name]);
       });
       store.size().then(() => parentPort.postMessage("listens"));
       parentPort.on("message", () => process.exit());`,
      { eval: true },
    );
    await once(worker, "message");
    const one = session();
    await store.create(one);
    const theirs = once(worker, "message");
    await store.delete(one.sessionId);
    assert.deepEqual(await theirs, [["deleted", hashOf(one.sessionId), name]]);
    await untilEnded(heard, 1);
    worker.postMessage("end");
    await once(worker, "exit");
    // The store continues without that thread.
    const other = session();
    await store.create(other);
    await store.delete(other.sessionId);
    await untilEnded(heard, 2);
    await store.close();
  });
});

describe("a process", () => {
  const script = (text) => [
    "-e",
    `const { FileStore, MemoryStore } = require(${JSON.stringify(ROOT)});
     const diagnostics = require("node:diagnostics_channel");
     const one = { sessionId: "secret-id", expires: new Date(Date.now() + 60_000), userId: "ann", word: "private" };
     ${text}`,
  ];

  it("ends while events are pending, and while it is subscribed", async () => {
    const { stdout } = await run(
      process.execPath,
      script(`
        diagnostics.subscribe("native-store:session:end", () => {});
        const store = new MemoryStore();
        (async () => {
          for (let at = 0; at < 5000; at++) await store.create({ ...one, sessionId: "s" + at });
          await store.deleteByUser("ann");
          console.log("done");
        })();`),
      { timeout: 30_000 },
    );
    assert.equal(stdout, "done\n");
  });

  it("completes its calls when a subscriber throws, which is an uncaught exception", async () => {
    const { stdout } = await run(
      process.execPath,
      script(`
        const thrown = [];
        process.on("uncaughtException", (error) => thrown.push(error.message));
        for (const name of ["session:end", "store:error"]) {
          diagnostics.subscribe("native-store:" + name, () => { throw new Error("of " + name); });
        }
        const store = new MemoryStore({ maxBytes: 10_000 });
        (async () => {
          await store.create(one);
          await store.delete("secret-id");
          const { code } = await store.create({ ...one, word: "x".repeat(20_000) }).catch((error) => error);
          const wait = setInterval(() => {
            if (thrown.length < 2) return;
            clearInterval(wait);
            console.log(JSON.stringify([code, thrown.sort()]));
          }, 5);
        })();`),
      { timeout: 30_000 },
    );
    assert.deepEqual(JSON.parse(stdout), ["ERR_STORE_FULL", ["of session:end", "of store:error"]]);
  });

  it("prints events with NODE_DEBUG=native-store, and no secret", async () => {
    const { stderr } = await run(
      process.execPath,
      script(`
        const store = new MemoryStore();
        (async () => {
          await store.create(one);
          await store.delete("secret-id");
          await store.clean();
          const wait = setInterval(() => {}, 1000);
          diagnostics.subscribe("native-store:sweep", () => clearInterval(wait));
          await store.clean();
        })();`),
      { timeout: 30_000, env: { ...process.env, NODE_DEBUG: "native-store" } },
    );
    const id = hashOf("secret-id");
    assert.match(
      stderr,
      new RegExp(`^NATIVE-STORE \\d+: session:end memory .*"id":"${id}","reason":"deleted"`, "m"),
    );
    assert.match(stderr, /^NATIVE-STORE \d+: sweep memory .*"removed":0/m);
    assert.ok(!stderr.includes("secret-id") && !stderr.includes("private"), stderr);
  });
});

describe("a FileStore", () => {
  it("publishes that its log was drained", async (t) => {
    const store = new FileStore({ path: place.next(), sweepInterval: 0 });
    const drains = listen("file:drain", store);
    await store.create(session());
    if ((await store.stats()).log === null) return t.skip("no log on this system or file system");
    for await (const _ of store.ids());
    await until(() => drains.length > 0, "the drain is heard of");
    assert.ok(drains[0].bytes > 0 && drains[0].duration >= 0);
    await store.close();
  });

  it("publishes that it is full", async () => {
    const store = new FileStore({ path: place.next(), maxBytes: 2 ** 20, sweepInterval: 0 });
    const [full, errors] = [listen("file:full", store), listen("store:error", store)];
    while (full.length === 0) {
      const writes = Array.from({ length: 50 }, () => store.create(session({ data: "x".repeat(3000) })));
      await Promise.allSettled(writes);
    }
    assert.deepEqual([full[0].call, full.length], ["create", errors.length]);
    assert.match(full[0].message, /maxBytes is 1048576/);
    await store.close();
  });

  it("publishes that a sweep failed, and the failed call", { skip: notLinux }, async () => {
    const store = new FileStore({ path: place.next(), sweepInterval: 0 });
    const [sweeps, errors] = [listen("sweep", store), listen("store:error", store)];
    await store.create(session());
    fs.renameSync(store.db.path, `${store.db.path}-moved`);
    await assert.rejects(store.clean());
    await until(() => sweeps.length > 0, "the sweep is heard of");
    assert.match(sweeps[0].error, /removed, moved or replaced/);
    assert.deepEqual([errors[0].call, errors[0].code], ["clean", "ERR_STORE_IO"]);
    await store.close();
  });
});

describe("a RedisStore", { skip: redisMissing }, () => {
  it("publishes new and lost connections, and failed calls", async () => {
    const server = await startServer();
    const store = new RedisStore({ url: server.url, sweepInterval: 0, commandTimeout: 500 });
    const connects = listen("redis:connect", store);
    const disconnects = listen("redis:disconnect", store);
    const errors = listen("store:error", store);
    await store.ready();
    await server.kill();
    await until(() => disconnects.length > 0, "the loss is heard of");
    assert.equal(disconnects[0].server, `127.0.0.1:${server.port}`);
    assert.match(disconnects[0].message, /^no connection to 127\.0\.0\.1/);
    await assert.rejects(store.get("a"));
    const [{ call, code, reason }] = errors;
    assert.deepEqual([call, code, reason], ["get", "ERR_STORE_UNAVAILABLE", "refused"]);
    const before = connects.length;
    await server.start();
    await until(() => connects.length > before, "the new connection is heard of");
    assert.equal(connects.at(-1).server, `127.0.0.1:${server.port}`);
    await store.close();
    await server.kill();
  });

  it("publishes a failover", async () => {
    const [one, other] = await Promise.all([startServer(), startServer()]);
    let primary = one;
    const sentinel = await startFakeServer(([command, subcommand]) => {
      if (command === "PING") return "+PONG\r\n";
      if (command !== "SENTINEL" || subcommand !== "get-master-addr-by-name")
        return "-ERR unknown command\r\n";
      return list([bulk("127.0.0.1"), bulk(primary.port)]);
    });
    const store = new RedisStore({
      sentinel: { urls: [sentinel.url], master: "sessions" },
      sweepInterval: 0,
    });
    const failovers = listen("redis:failover", store);
    await store.ready();
    assert.deepEqual(failovers, []);
    primary = other;
    await until(() => failovers.length > 0, "the failover is heard of");
    const [{ from, to }] = failovers;
    assert.deepEqual([from, to], [`127.0.0.1:${one.port}`, `127.0.0.1:${other.port}`]);
    await store.close();
    sentinel.close();
    await Promise.all([one.kill(), other.kill()]);
  });
});
