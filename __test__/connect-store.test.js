"use strict";

const assert = require("node:assert/strict");
const { spawnSync } = require("node:child_process");
const path = require("node:path");
const { describe, it } = require("node:test");
const { FileStore, MemoryStore, SessionStoreError } = require("..");
const { ConnectStore } = require("../connect.js");
const { connectConformance } = require("./connect-conformance.js");
const { makePlace } = require("./support/file-places.js");
const { makeRedisPlace } = require("./support/redis-places.js");
const { redisMissing } = require("./support/redis-servers.js");

const { next: newFolder } = makePlace();
const redis = makeRedisPlace();
const cluster = makeRedisPlace("cluster");
const secret = "a secret of some length";

for (const [name, createStore] of [
  ["MemoryStore", (options) => new MemoryStore(options)],
  ["FileStore", (options) => new FileStore({ path: newFolder(), ...options })],
  ["FileStore with a secret", (options) => new FileStore({ path: newFolder(), secret, ...options })],
]) {
  connectConformance(name, createStore, { ConnectStore, SessionStoreError });
}

for (const [name, createStore] of [
  ["RedisStore", (options) => redis.open(options)],
  ["RedisStore with a secret", (options) => redis.open({ secret, ...options })],
  ["RedisStore of a cluster", (options) => cluster.open(options)],
]) {
  connectConformance(name, createStore, { ConnectStore, SessionStoreError }, { skip: redisMissing });
}

/** A store with one method replaced. */
const withMethod = (store, replaced, method) =>
  new Proxy(store, {
    get: (_, name) => (name === replaced ? method : (store[name]?.bind?.(store) ?? store[name])),
  });

const invalidOption = (words) => (error) => {
  assert.ok(error instanceof SessionStoreError);
  assert.equal(error.code, "ERR_INVALID_OPTION");
  assert.match(error.message, words);
  return true;
};

describe("ready, ping and stats of a ConnectStore", () => {
  const inner = new FileStore({ path: newFolder() });
  const store = new ConnectStore(inner);

  it("are forwarded to its store", async () => {
    assert.equal(await store.ready({ timeout: 5000 }), undefined);
    assert.ok((await store.ping()) >= 0);
    await store.set("a", { cookie: {} });
    const { created, log, calls } = await store.stats();
    assert.deepEqual([created, calls.ping.count], [1, 2]);
    assert.deepEqual(log, (await inner.stats()).log);
    await assert.rejects(store.ping({ timeout: 0 }), invalidOption(/^timeout must be /));
  });

  it("take no callback", async () => {
    const callback = () => assert.fail("called back");
    for (const method of ["ready", "ping", "stats"]) {
      const words = new RegExp(`^ConnectStore\\.${method} returns a promise and takes no callback$`);
      await assert.rejects(store[method](callback), invalidOption(words));
      if (method !== "stats") await assert.rejects(store[method]({}, callback), invalidOption(words));
    }
  });

  it("reject when it is closed", async () => {
    await store.close();
    for (const method of ["ready", "ping", "stats"]) {
      await assert.rejects(store[method](), { code: "ERR_STORE_CLOSED" });
    }
  });
});

describe("new ConnectStore", () => {
  it("requires a store of this package", () => {
    const map = new Map();
    for (const store of [undefined, null, {}, map, "./sessions", { path: "./sessions" }, MemoryStore]) {
      assert.throws(() => new ConnectStore(store), invalidOption(/store must be a store of this package/));
    }
  });

  it("accepts any object with the methods of a store", async () => {
    const inner = new MemoryStore();
    const wrapped = new Proxy(inner, { get: (store, name) => store[name]?.bind?.(store) ?? store[name] });
    const store = new ConnectStore(wrapped);
    await store.set("a", { cookie: {} });
    assert.deepEqual(await store.get("a"), { cookie: {} });
  });

  it("names the invalid option, and the accepted values", () => {
    const store = new MemoryStore();
    const wrong = [
      [{ ttl: 0 }, /ttl must be .*milliseconds.*; got 0/],
      [{ ttl: "1d" }, /ttl must be .*; got a string/],
      [{ ttl: Number.POSITIVE_INFINITY }, /ttl/],
      [{ ttl: Number.MAX_SAFE_INTEGER }, /ttl/],
      [{ touchAfter: -1 }, /touchAfter must be .*; got -1/],
      [{ touchAfter: 1.5 }, /touchAfter/],
      [{ prefix: 7 }, /prefix must be a string; got 7/],
      [{ prefix: "\ud800" }, /prefix/],
      [{ userId: "passport.user" }, /userId must be a function of the session; got a string/],
      [{ touchafter: 1 }, /ConnectStore has no option "touchafter": did you mean touchAfter\?/],
      [
        { client: {} },
        /ConnectStore has no option "client": a Redis server is given to the store: new ConnectStore\(new Red/,
      ],
      [
        { colour: 1 },
        /has no option "colour": the options are ttl, touchAfter, maxLifetime, prefix, userId$/,
      ],
      [null, /options must be an object; got null/],
      [[], /options must be an object; got an array/],
    ];
    for (const [options, words] of wrong) {
      assert.throws(() => new ConnectStore(store, options), invalidOption(words));
    }
  });

  it("treats an undefined option as omitted", () => {
    new ConnectStore(new MemoryStore(), {
      ttl: undefined,
      touchAfter: undefined,
      prefix: undefined,
      userId: undefined,
    });
  });

  it("must be called with new", () => {
    assert.throws(() => ConnectStore(new MemoryStore()), TypeError);
  });
});

describe("a call of a ConnectStore that fails after its first step", () => {
  const unreachable = () =>
    Object.assign(new SessionStoreError("ERR_STORE_UNAVAILABLE", "no answer"), { reason: "network" });
  let failing;
  const inner = new MemoryStore();
  const wrapped = new Proxy(inner, {
    get: (store, name) => {
      if (name === failing) return () => Promise.reject(unreachable());
      return store[name]?.bind?.(store) ?? store[name];
    },
  });

  it("has an unknown outcome if it has moved the expiry", async () => {
    const store = new ConnectStore(wrapped);
    for (const [method, outcome] of [
      ["touch", undefined],
      ["get", "unknown"],
      ["update", "unknown"],
    ]) {
      await store.set("a", { cookie: { path: "/" } });
      const session = await store.get("a");
      session.cookie.path = `/${method}`;
      failing = method;
      const error = await store.touch("a", session).catch((reason) => reason);
      failing = undefined;
      const { code, reason } = error;
      const expected = ["ERR_STORE_UNAVAILABLE", "network", outcome];
      assert.deepEqual([code, reason, error.outcome], expected, method);
      if (outcome) assert.match(error.message, /^no answer; the expiry of the session may have moved$/);
      assert.equal((await store.get("a")).cookie.path, "/");
    }
  });

  it("has an unknown outcome and its reason if it has destroyed some of the sessions", async () => {
    const store = new ConnectStore(wrapped, { prefix: "app:" });
    for (const sid of ["a", "b"]) await store.set(sid, { cookie: {} });
    let calls = 0;
    inner.delete = (id) =>
      calls++ === 0 ? MemoryStore.prototype.delete.call(inner, id) : Promise.reject(unreachable());
    await assert.rejects(store.clear(), {
      code: "ERR_STORE_UNAVAILABLE",
      reason: "network",
      outcome: "unknown",
      message: "no answer; some of the sessions may be destroyed",
    });
    assert.equal(await store.length(), 1);
  });

  it("has an unknown outcome if any of the sessions may have been destroyed", async () => {
    for (const call of ["clear", "destroyByUser"]) {
      const full = new MemoryStore();
      const store = new ConnectStore(full, { prefix: "app:", userId: ({ user }) => user });
      for (const sid of ["a", "b"]) await store.set(sid, { cookie: {}, user: "ada" });
      let calls = 0;
      full.delete = () => Promise.reject(Object.assign(unreachable(), calls++ > 0 && { outcome: "unknown" }));
      await assert.rejects(store[call]("ada"), { code: "ERR_STORE_UNAVAILABLE", outcome: "unknown" }, call);
      full.delete = () => Promise.reject(unreachable());
      const error = await store[call]("ada").catch((reason) => reason);
      assert.deepEqual([error.message, error.outcome], ["no answer", undefined], call);
    }
  });

  it("has an unknown outcome if clear cannot read further ids after it has destroyed some sessions", async () => {
    for (const [count, outcome, message] of [
      [0, undefined, "no answer"],
      [255, undefined, "no answer"],
      [256, "unknown", "no answer; some of the sessions may be destroyed"],
    ]) {
      const ids = async function* () {
        for (let at = 0; at < count; at++) yield `app:${at}`;
        throw unreachable();
      };
      const store = new ConnectStore(withMethod(new MemoryStore(), "ids", ids), { prefix: "app:" });
      for (let at = 0; at < count; at++) await store.set(`${at}`, { cookie: {} });
      const error = await store.clear().catch((reason) => reason);
      assert.deepEqual(
        [error.code, error.outcome, error.message],
        ["ERR_STORE_UNAVAILABLE", outcome, message],
      );
      assert.equal(await store.store.size(), count % 256);
    }
  });

  it("has an unknown outcome if destroyByUser has destroyed all sessions that can be read", async () => {
    const damaged = () => new SessionStoreError("ERR_STORE_CORRUPT", "1 session cannot be read");
    for (const [sids, left, outcome, message] of [
      [["a", "b", "kept"], 1, "unknown", "1 session cannot be read; some of the sessions may be destroyed"],
      [["kept"], 1, undefined, "1 session cannot be read"],
    ]) {
      const memory = new MemoryStore();
      const sessions = async function* (options) {
        yield* memory.sessions(options);
        throw damaged();
      };
      const options = { prefix: "app:", userId: ({ user }) => user };
      const store = new ConnectStore(withMethod(memory, "sessions", sessions), options);
      for (const sid of sids) await store.set(sid, { cookie: {}, user: "ada" });
      const error = await store.destroyByUser("ada", { except: "kept" }).catch((reason) => reason);
      assert.deepEqual([error.code, error.outcome, error.message], ["ERR_STORE_CORRUPT", outcome, message]);
      assert.equal(await memory.size(), left);
    }
  });
});

describe("a ConnectStore whose calls are not awaited", () => {
  const full = () => new SessionStoreError("ERR_TOO_MANY_SESSIONS", "full");

  it("rejects each save of a new session that is refused", async () => {
    const inner = new MemoryStore();
    const store = new ConnectStore(inner);
    inner.create = async () => {
      throw full();
    };
    const session = { cookie: {} };
    const first = store.set("a", session);
    session.name = "Ada";
    const ends = await Promise.allSettled([first, store.set("a", session)]);
    const codes = ends.map(({ reason }) => reason?.code);
    assert.deepEqual(codes, ["ERR_TOO_MANY_SESSIONS", "ERR_TOO_MANY_SESSIONS"]);
    delete inner.create;
    await store.set("a", session);
    assert.equal((await store.get("a")).name, "Ada");
  });

  it("lists sessions after an earlier clear or destroyByUser", async () => {
    const store = new ConnectStore(new FileStore({ path: newFolder() }), {
      prefix: "app:",
      userId: ({ user }) => user,
    });
    const fill = async (name) => {
      for (let at = 0; at < 300; at++) await store.set(`${name}${at}`, { cookie: {}, user: "ada" });
    };
    await fill("a");
    const ended = store.destroyByUser("ada");
    assert.deepEqual(await store.getByUser("ada"), []);
    assert.equal(await ended, 300);
    await fill("b");
    const cleared = store.clear();
    const [ofUser, ids, length, all] = await Promise.all([
      store.getByUser("ada"),
      store.ids(),
      store.length(),
      store.all(),
    ]);
    assert.deepEqual([ofUser, ids, length, { ...all }], [[], [], 0, {}]);
    await cleared;
    await store.close();
  });
});

describe("clear of a ConnectStore", () => {
  // As @fastify/session before 11.1.2 does.
  it("is not undone by a request whose framework copies sessions without their marks", async () => {
    const store = new ConnectStore(new MemoryStore());
    await store.set("a", { cookie: {}, user: "ada" });
    const copied = await new Promise((resolve, reject) => {
      store.get("a", (error, session) => (error ? reject(error) : resolve(structuredClone(session))));
    });
    await store.clear();
    const session = { ...copied, touch: () => undefined, isModified: () => true };
    await assert.rejects(store.set("a", session), { code: "ERR_SESSION_ENDED" });
    assert.equal(await store.length(), 0);
    // The app may use the id again.
    await store.set("a", { cookie: {}, user: "ben" });
    assert.equal((await store.get("a")).user, "ben");
  });
});

describe("a copy of a session from a list", () => {
  it("does not bring the session back", async () => {
    const lists = {
      all: async (store) => (await store.all()).a,
      getByUser: async (store) => (await store.getByUser("ada"))[0].session,
      sessions: async (store) => {
        for await (const { session } of store.sessions()) return session;
      },
    };
    for (const [name, list] of Object.entries(lists)) {
      const inner = new MemoryStore();
      const options = { userId: ({ user }) => user };
      const [store, other] = [new ConnectStore(inner, options), new ConnectStore(inner, options)];
      await other.set("a", { cookie: {}, user: "ada" });
      const copy = structuredClone(await list(store));
      await other.destroy("a");
      await assert.rejects(store.set("a", copy), { code: "ERR_SESSION_ENDED" }, name);
      assert.equal(await other.get("a"), null);
    }
  });
});

describe("a process that uses a ConnectStore", () => {
  const run = (body) => {
    const script = `
      const { MemoryStore } = require(${JSON.stringify(path.join(__dirname, ".."))});
      const { ConnectStore } = require(${JSON.stringify(path.join(__dirname, "../connect.js"))});
      const store = new ConnectStore(new MemoryStore());
      let calls = 0;
      ${body}`;
    return spawnSync(process.execPath, ["-e", script], { encoding: "utf8" });
  };

  it("ends with an uncaught exception when a callback throws, and calls it once", () => {
    for (const call of [
      'store.get("a", callback)',
      'store.set("a", { cookie: {} }, callback)',
      "store.ids(callback)",
    ]) {
      const { stdout, status } = run(`
        process.on("uncaughtException", (error, origin) => {
          setTimeout(() => console.log(error.message, origin, calls), 20);
        });
        process.on("unhandledRejection", () => console.log("rejected"));
        const callback = () => { calls++; throw new Error("thrown in a callback"); };
        ${call};`);
      assert.equal(stdout, "thrown in a callback uncaughtException 1\n");
      assert.equal(status, 0);
    }
  });

  it("does not end because of an unhandled rejection", () => {
    const { stdout, status } = run(`
      store.close().then(() => {
        store.destroy("a");
        store.set("a", { cookie: {} });
        store.clear();
        setTimeout(() => console.log("lives"), 20);
      });`);
    assert.equal(stdout, "lives\n");
    assert.equal(status, 0);
  });

  it("keeps the async context of the calling request", () => {
    const { stdout } = run(`
      const { AsyncLocalStorage } = require("node:async_hooks");
      const requests = new AsyncLocalStorage();
      for (const n of [1, 2]) requests.run(n, () => store.get("a", () => console.log(requests.getStore())));`);
    assert.equal(stdout, "1\n2\n");
  });

  it("is not kept alive by it", () => {
    const { status, signal } = run('store.set("a", { cookie: {} });');
    assert.deepEqual([status, signal], [0, null]);
  });
});
