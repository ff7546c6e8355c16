"use strict";

// A RedisStore and its process, its threads and a missing server.

const assert = require("node:assert/strict");
const { once } = require("node:events");
const { after, before, beforeEach, describe, it } = require("node:test");
const { Worker } = require("node:worker_threads");
const { RedisStore } = require("..");
const { redisMissing, startProxy, startServer, until } = require("./support/redis-servers.js");
const { PRELUDE, run } = require("./support/file-scripts.js");
const { session } = require("./support/file-session.js");

// The deadline of calls that must end by it. All other calls have the maximum.
const DEADLINE = 1500;
const LONGEST = 30_000;
// Without a deadline a call would wait until the server is back. Even on a busy machine no call is this late.
const LATEST = 4 * DEADLINE;
// If a store kept a process alive, it would never end.
const ENDS = { timeout: 20_000 };

const open = (options) => new RedisStore({ commandTimeout: LONGEST, sweepInterval: 0, ...options });

const codeOf = (call) =>
  call.then(
    () => "done",
    (error) => error.code,
  );

/** Returns how often calls end with each code, and how long the slowest takes. */
async function settle(starts) {
  let longest = 0;
  const codes = {};
  await Promise.all(
    starts.map(async (start) => {
      const began = performance.now();
      const code = await codeOf(start());
      codes[code] = (codes[code] ?? 0) + 1;
      longest = Math.max(longest, performance.now() - began);
    }),
  );
  return { codes, longest };
}

const connects = (store) =>
  until(() => codeOf(store.get("a")).then((code) => code === "done"), "it is connected");

const AWAY = ["ERR_STORE_TIMEOUT", "ERR_STORE_UNAVAILABLE"];

describe("a RedisStore whose server is away", { skip: redisMissing }, () => {
  let server;
  before(async () => {
    server = await startServer();
  });
  // In the state in which a failed test has left it.
  beforeEach(async () => {
    await server.kill();
    await server.start();
  });
  after(() => server?.kill());

  async function openConnected(url = server.url) {
    const store = open({ url, commandTimeout: DEADLINE });
    await connects(store);
    return store;
  }

  it("is created immediately, and settles each call by its deadline", async () => {
    await server.kill();
    const began = performance.now();
    const store = open({ url: server.url, commandTimeout: DEADLINE });
    assert.ok(performance.now() - began < DEADLINE, "it waited for the network");
    const one = session("a");
    const { codes, longest } = await settle([
      () => store.create(one),
      () => store.get("a"),
      () => store.update("a", one),
      () => store.touch("a", one.expires),
      () => store.delete("a"),
      () => store.clean(),
      () => store.getByUser("ann"),
      () => store.deleteByUser("ann"),
      () => store.size(),
      () => store.ids().next(),
      () => store.clear(),
    ]);
    assert.ok(
      Object.keys(codes).every((code) => AWAY.includes(code)),
      JSON.stringify(codes),
    );
    assert.ok(longest < LATEST, `${longest} ms`);
    await server.start();
    await connects(store);
    await store.create(one);
    await store.close();
  });

  it("settles very many waiting calls, and accepts new ones when the server is back", async () => {
    const store = await openConnected();
    await server.kill();
    const calls = Array.from(
      { length: 20_000 },
      (_, at) => () => (at % 2 ? store.get(`${at}`) : store.create(session(`many ${at}`))),
    );
    const { codes, longest } = await settle(calls);
    assert.ok(
      Object.keys(codes).every((code) => AWAY.includes(code)),
      JSON.stringify(codes),
    );
    assert.ok(longest < LATEST, `${longest} ms`);
    await server.start();
    await connects(store);
    assert.equal(await store.size(), 0);
    await store.close();
  });

  it("abandons a connection without replies, even if calls are rare", async () => {
    const proxy = await startProxy(server);
    const store = await openConnected(proxy.url);
    proxy.goDark();
    // Unavailable if its second connection was just being made.
    assert.ok(AWAY.includes(await codeOf(store.get("a"))));
    await proxy.heal();
    // On the old connection it would time out, too.
    assert.equal(await store.get("a"), null);
    await store.close();
    await proxy.close();
  });

  it("waits only one deadline if both of its connections are silent", async () => {
    const proxy = await startProxy(server);
    const store = await openConnected(proxy.url);
    await until(async () => {
      await store.get("a");
      const clients = (await server.call("CLIENT", "LIST")).match(/ name=native-store .* cmd=\S+/g) ?? [];
      return clients.length === 2 && clients.some((client) => client.endsWith(" cmd=get"));
    }, "it uses its fast path, which has loaded its scripts before");
    proxy.goDark();
    assert.equal(await codeOf(store.get("a")), "ERR_STORE_TIMEOUT");
    await proxy.heal();
    assert.equal(await store.get("a"), null);
    await store.close();
    await proxy.close();
  });

  it("closes by the deadline, and ends waiting calls", async () => {
    const store = await openConnected();
    await server.kill();
    const settled = settle([() => store.get("a"), () => store.create(session("b")), () => store.size()]);
    const began = performance.now();
    await store.close();
    const took = performance.now() - began;
    assert.ok(took < LATEST, `${took} ms`);
    const { codes, longest } = await settled;
    assert.ok(!("done" in codes), JSON.stringify(codes));
    assert.ok(longest < LATEST, `${longest} ms`);
    assert.equal(await codeOf(store.get("a")), "ERR_STORE_CLOSED");
    assert.equal(await codeOf(store.close()), "done");
    await server.start();
  });

  it("closes by the deadline while the server does not answer", async () => {
    const store = await openConnected();
    await server.pause();
    const settled = settle([() => store.create(session("paused")), () => store.get("a")]);
    const began = performance.now();
    await store.close();
    assert.ok(performance.now() - began < LATEST);
    const { longest } = await settled;
    assert.ok(longest < LATEST, `${longest} ms`);
    server.resume();
  });

  it("does not keep the process alive, with or without calls", async () => {
    await server.kill();
    for (const script of [
      "",
      'store.get("a").catch((error) => say(error.code));',
      'store.create(session("a")).catch((error) => say(error.code));',
      "store.size().catch((error) => say(error.code));",
    ]) {
      const printed = await run(`${openIn(DEADLINE)} ${script}`, { args: [server.url], ...ENDS });
      assert.ok(printed === "" || AWAY.includes(printed), printed);
    }
    const exits = `${OPEN} store.get("a").catch(() => {}); process.exit(0);`;
    assert.equal(await run(exits, { args: [server.url], ...ENDS }), "");
    await server.start();
  });
});

const openIn = (commandTimeout) => `
  const { RedisStore } = require(${JSON.stringify(require.resolve(".."))});
  const store = new RedisStore({ url: process.argv[1], commandTimeout: ${commandTimeout} });`;
const OPEN = openIn(LONGEST);

describe("a process with a RedisStore", { skip: redisMissing }, () => {
  let server;
  before(async () => {
    server = await startServer();
  });
  after(() => server?.kill());

  it("has written what it began last before it ends by itself", async () => {
    await run(`${OPEN} for (let at = 0; at < 1000; at++) store.create(session("s" + at));`, {
      args: [server.url],
    });
    const store = open({ url: server.url });
    assert.equal(await store.size(), 1000);
    await store.clear();
    await store.close();
  });

  it("ends by itself with stores that are open and idle", async () => {
    await run(`${OPEN} store.create(session("idle")).then(() => store.delete("idle"));`, {
      args: [server.url],
      ...ENDS,
    });
  });

  it("may exit in the middle of calls, each of which happens completely or not at all", async () => {
    const acknowledged = await run(
      `${OPEN}
       let done = 0;
       const write = async (by) => {
         for (let at = by; ; at += 16) {
           await store.create(session("exit " + at));
           say("exit " + at);
           if (++done === 200) process.exit(0);
         }
       };
       for (let by = 0; by < 16; by++) write(by);`,
      { args: [server.url] },
    );
    const store = open({ url: server.url });
    for (const id of acknowledged.split("\n")) assert.notEqual(await store.get(id), null);
    await store.close();
  });

  it("completes earlier calls in close()", async () => {
    const store = open({ url: server.url });
    const begun = Array.from({ length: 1000 }, (_, at) => store.create(session(`close ${at}`)));
    const closed = store.close();
    assert.equal(await codeOf(store.get("a")), "ERR_STORE_CLOSED");
    await closed;
    await Promise.all(begun);
    const again = open({ url: server.url });
    for (let at = 0; at < 1000; at += 50) assert.notEqual(await again.get(`close ${at}`), null);
    await again.close();
  });

  it("leaves no connection behind", async () => {
    const connections = async () => Number((await server.info("clients")).connected_clients);
    const before = await connections();
    for (let round = 0; round < 30; round++) {
      const store = open({ url: server.url });
      await store.get("a");
      await store.close();
    }
    await until(async () => (await connections()) <= before, "all connections are gone");
  });

  it("continues when one of its threads is ended in the middle of calls", async () => {
    const store = open({ url: server.url });
    const script = `${PRELUDE}
      const { parentPort, workerData } = require("node:worker_threads");
      const { RedisStore } = require(${JSON.stringify(require.resolve(".."))});
      const acknowledged = new Int32Array(workerData.acknowledged);
      const store = new RedisStore({ url: workerData.url, commandTimeout: ${LONGEST} });
      const write = async (by) => {
        for (let at = 0; ; at++) {
          await store.create(session([workerData.name, by, at].join("-")));
          Atomics.store(acknowledged, by, at + 1);
          store.getByUser("ann");
          if (by + at === 20) parentPort.postMessage("busy");
        }
      };
      for (let by = 0; by < acknowledged.length; by++) write(by);`;
    for (let round = 0; round < 5; round++) {
      const acknowledged = new Int32Array(new SharedArrayBuffer(8 * 4));
      const name = `thread ${round}`;
      const workerData = { url: server.url, name, acknowledged: acknowledged.buffer };
      const worker = new Worker(script, { eval: true, workerData });
      await once(worker, "message");
      await worker.terminate();
      const ids = [...acknowledged].flatMap((count, by) =>
        Array.from({ length: count }, (_, at) => `${name}-${by}-${at}`),
      );
      const found = await Promise.all(ids.map((id) => store.get(id)));
      assert.ok(found.every((one) => one !== null));
      await store.create(session(`after ${name}`));
    }
    await store.close();
  });

  it("continues when a thread ends with calls to a missing server", async () => {
    const store = open({ url: server.url });
    await server.pause();
    const script = `
      const { parentPort, workerData } = require("node:worker_threads");
      const { RedisStore } = require(${JSON.stringify(require.resolve(".."))});
      const store = new RedisStore({ url: workerData.url });
      for (let at = 0; at < 100; at++) store.get("" + at).catch(() => {});
      store.size().catch(() => {});
      parentPort.postMessage("called");`;
    for (let round = 0; round < 3; round++) {
      const worker = new Worker(script, { eval: true, workerData: { url: server.url } });
      await once(worker, "message");
      await worker.terminate();
    }
    server.resume();
    assert.equal(await store.get("nobody"), null);
    await store.close();
  });
});
