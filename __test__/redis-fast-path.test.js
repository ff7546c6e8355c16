"use strict";

// The event-loop connection of a RedisStore, as far as it needs Node.

const assert = require("node:assert/strict");
const { once } = require("node:events");
const { after, before, describe, it } = require("node:test");
const { Worker } = require("node:worker_threads");
const { RedisStore } = require("..");
const {
  redisMissing,
  startServer,
  startTlsServer,
  tlsMissing,
  until,
} = require("./support/redis-servers.js");
const { startBreaker } = require("./support/redis/breaker.js");
const { PRELUDE, run } = require("./support/file-scripts.js");
const { session } = require("./support/file-session.js");

// The deadline of calls that must reach it. All other calls have the maximum.
const DEADLINE = 2000;
const LONGEST = 30_000;
// If a store kept a process alive, it would never end.
const ENDS = { timeout: 20_000 };

const open = (server, options) =>
  new RedisStore({ ...optionsFor(server), commandTimeout: LONGEST, sweepInterval: 0, ...options });

const optionsFor = ({ url, certificates }) => ({
  url,
  ...(certificates && { tls: { ca: certificates.ca } }),
});

const codeOf = (call) =>
  call.then(
    () => "done",
    (error) => error.code,
  );

/** Blocks this thread. */
const block = (millis) => Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, millis);

const OPEN = `
  const { RedisStore } = require(${JSON.stringify(require.resolve(".."))});
  const given = JSON.parse(process.argv[1]);
  const open = () => new RedisStore({ ...given, commandTimeout: ${LONGEST} });
  const store = open();
  const calls = async (count) => {
    for (let at = 0; at < count; at++) await store.get("" + at);
  };`;

const KINDS = [
  { title: "the fast path of a RedisStore", start: startServer, skip: redisMissing },
  { title: "the fast path of a RedisStore over TLS", start: startTlsServer, skip: tlsMissing },
];

for (const { title, start, skip } of KINDS)
  describe(title, { skip }, () => {
    let server;
    before(async () => {
      server = await start();
    });
    after(() => server?.kill());

    const inProcess = (script, flags) =>
      run(OPEN + script, { args: [JSON.stringify(optionsFor(server))], flags, ...ENDS });

    /** Returns the ids of all connections to the server except the asking one. */
    async function connections() {
      const client = await server.connect();
      const [own, list] = [await client.call("CLIENT", "ID"), await client.call("CLIENT", "LIST")];
      client.close();
      const ids = list.split("\n").map((line) => /^id=(\d+)/.exec(line)?.[1]);
      return ids.filter((id) => id !== undefined && Number(id) !== own);
    }

    /** A store whose fast path is open. */
    async function withFastPath(options) {
      await until(async () => (await connections()).length === 0, "the connections of others are gone");
      const store = open(server, options);
      await store.get("nobody");
      await until(async () => (await connections()).length === 2, "it has a fast path");
      // The worker reports in order: first the connection, then this call.
      await store.size();
      return store;
    }

    it("is one connection besides the worker's, and ends with it", async () => {
      const store = await withFastPath();
      await Promise.all(Array.from({ length: 100 }, (_, at) => store.get(`${at}`)));
      assert.equal((await connections()).length, 2);
      await store.close();
      await until(async () => (await connections()).length === 0, "both are gone");
    });

    it("is restored when all connections were killed, while calls continue", async () => {
      const store = await withFastPath();
      await store.create(session("kept"));
      for (let round = 0; round < 5; round++) {
        const old = await connections();
        await server.call("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes");
        assert.equal((await store.get("kept")).userId, "ann");
        assert.equal(await store.touch("kept", session("kept").expires), true);
        await until(async () => {
          const now = await connections();
          return now.length === 2 && !now.some((id) => old.includes(id));
        }, "there are new ones");
      }
      await store.clear();
      await store.close();
    });

    it("ends with the worker connection without losing a call", async () => {
      const store = await withFastPath();
      await store.create(session("kept"));
      const [own] = await connections();
      let isOver = false;
      const codes = new Set();
      const calls = Array.from({ length: 32 }, async () => {
        while (!isOver) codes.add(await codeOf(store.update("kept", session("kept"))));
      });
      await server.call("CLIENT", "KILL", "ID", own);
      await until(async () => !(await connections()).includes(own), "it is gone");
      await until(async () => (await connections()).length === 2, "there are new ones");
      isOver = true;
      await Promise.all(calls);
      assert.deepEqual([...codes], ["done"]);
      await store.clear();
      await store.close();
    });

    it("completes calls whose replies arrived while the event loop was blocked past their deadline", async () => {
      const store = await withFastPath({ commandTimeout: DEADLINE });
      const calls = [store.create(session("busy")), store.get("busy"), store.delete("busy")];
      // The first call alone is sent immediately, the others with the next turn.
      setImmediate(() => setImmediate(() => block(DEADLINE + 500)));
      const codes = await Promise.all(calls.map(codeOf));
      assert.deepEqual(codes, ["done", "done", "done"]);
      await store.close();
    });

    it("settles 10 000 concurrent calls while the event loop turns", async () => {
      const store = await withFastPath();
      let [turns, settled, isOver] = [0, 0, false];
      const turnsAt = [];
      const turn = () => {
        turns++;
        if (!isOver) setImmediate(turn);
      };
      setImmediate(turn);
      const count = () => {
        settled++;
        turnsAt.push(turns);
      };
      await Promise.all(
        Array.from({ length: 10_000 }, (_, at) => store.create(session(`m ${at}`)).then(count)),
      );
      isOver = true;
      assert.equal(settled, 10_000);
      assert.ok(new Set(turnsAt).size >= 10, `they settled in ${new Set(turnsAt).size} turns`);
      assert.equal(await store.size(), 10_000);
      await store.clear();
      await store.close();
    });

    it("does not starve the event loop while replies never stop", async () => {
      const store = await withFastPath();
      const ids = Array.from({ length: 500 }, (_, at) => `long ${at}`);
      const cart = "x".repeat(10_000);
      await Promise.all(ids.map((sessionId) => store.create(session(sessionId, { cart }))));
      let [calls, turns] = [0, 0];
      const loops = ids.map(async (sessionId) => {
        for (; calls < 20_000; calls++) await store.get(sessionId);
      });
      for (; calls < 20_000; turns++) await new Promise(setImmediate);
      await Promise.all(loops);
      // Without turns it would stand still until the loops are over.
      assert.ok(turns >= 10, `${turns} turns for ${calls} calls`);
      await store.clear();
      await store.close();
    });

    it("reads a session once for all gets in a turn, and each gets its own copy", async () => {
      const store = await withFastPath();
      await store.create(session("shared", { count: 1 }));
      const reads = async () => Number((await server.info("stats")).keyspace_hits);
      const before = await reads();
      const found = await Promise.all(Array.from({ length: 100 }, () => store.get("shared")));
      assert.ok((await reads()) - before <= 3, `${(await reads()) - before} reads`);
      found[0].count = 2;
      for (const one of found.slice(1)) assert.equal(one.count, 1);
      // A change in between is seen.
      const calls = [
        store.get("shared"),
        store.update("shared", session("shared", { count: 3 })),
        store.get("shared"),
      ];
      assert.equal((await Promise.all(calls))[2].count, 3);
      await store.clear();
      await store.close();
    });

    it("lets close() wait for calls of any size, and settles them", async () => {
      const store = await withFastPath({ maxSessionBytes: 64e6, commandTimeout: 20_000 });
      await Promise.all([store.get("a"), store.get("b")]);
      const calls = [
        store.create(session("large", { cart: "x".repeat(20e6) })),
        ...Array.from({ length: 100 }, (_, at) => store.create(session(`c ${at}`))),
      ];
      const closed = store.close();
      assert.deepEqual(new Set(await Promise.all(calls.map(codeOf))), new Set(["done"]));
      await closed;
      const again = open(server);
      assert.equal(await again.size(), 101);
      await again.clear();
      await again.close();
    });

    it("settles calls that close() has started by their deadline, even if the server does not answer", async () => {
      const store = await withFastPath({ commandTimeout: DEADLINE });
      const pair = () => Promise.all([store.get("a"), store.get("b")]);
      await pair();
      // No deadline is left.
      await new Promise((resolve) => setTimeout(resolve, DEADLINE + 100));
      await pair();
      await server.pause();
      try {
        const began = performance.now();
        // After two concurrent calls it waits to batch more.
        const call = codeOf(store.create(session("late")));
        const closed = store.close();
        assert.equal(await call, "ERR_STORE_TIMEOUT");
        await closed;
        const took = performance.now() - began;
        // Without a deadline it would end when the server continues, which is later.
        assert.ok(took < 5 * DEADLINE, `${took} ms`);
      } finally {
        server.resume();
      }
    });

    it("reads replies from before a reset, and retries the other calls immediately", {
      skip: start !== startServer && "the breaker has no TLS",
    }, async () => {
      const breaker = await startBreaker();
      const store = open(breaker);
      await until(() => store.touch("any", Date.now() + 1e6), "it has a fast path");
      const began = performance.now();
      const calls = [store.get("break"), store.get("next")];
      // Both are sent. The reply to one, and the reset, have arrived when this thread reads.
      setImmediate(() => breaker.waitForBreak());
      assert.deepEqual(await Promise.all(calls), [null, null]);
      const took = performance.now() - began;
      assert.ok(took < LONGEST / 2, `${took} ms`);
      await store.close();
      await breaker.end();
    });

    it("does not keep a process with an idle store alive", async () => {
      assert.equal(await inProcess('calls(100).then(() => say("idle"));'), "idle");
    });

    it("lets a process exit in a callback, and in the middle of calls", async () => {
      for (const script of [
        "calls(50).then(() => { for (let at = 0; at < 1000; at++) store.get('' + at); process.exit(0); });",
        "calls(50); store.create(session('exit')).finally(() => process.exit(0));",
        "calls(50).then(() => store.get('a')).then(() => process.nextTick(() => process.exit(0)));",
        "calls(50); setTimeout(() => process.exit(0), 20); (async () => { for (;;) await calls(10); })();",
      ]) {
        assert.equal(await inProcess(script), "");
      }
      await server.call("FLUSHALL");
    });

    it("passes exceptions after a call to the process unchanged, and continues", async () => {
      const printed = await inProcess(`
      process.on("uncaughtException", (error) => say("uncaught " + error.message));
      process.on("unhandledRejection", (error) => say("unhandled " + error.message));
      (async () => {
        await calls(50);
        await new Promise((resolve) => setTimeout(resolve, 50));
        for (const how of ["tick", "continuation", "both"]) {
          await store.get("a");
          const fail = (text) => { throw new Error(text + " of " + how); };
          if (how !== "continuation") process.nextTick(() => fail("tick"));
          if (how !== "tick") store.get("b").then(() => fail("continuation"));
          await Promise.all([store.get("c"), store.get("d"), store.touch("e", Date.now() + 1000)]);
          await new Promise(setImmediate);
          say("on");
        }
        await store.close();
        say("closed");
      })();`);
      assert.deepEqual(printed.split("\n").sort(), [
        "closed",
        "on",
        "on",
        "on",
        "uncaught tick of both",
        "uncaught tick of tick",
        "unhandled continuation of both",
        "unhandled continuation of continuation",
      ]);
    });

    it("ends a process whose code throws after a call, like Node", async () => {
      const script = `calls(50).then(() => process.nextTick(() => { throw new Error("it is over"); }));`;
      const error = await inProcess(script).catch((error) => error);
      assert.equal(error.code, 1);
      assert.match(error.stderr, /Error: it is over/);
    });

    it("settles the calls of a store without other references", async () => {
      const printed = await inProcess(
        `(async () => {
         await calls(50);
         let settled = 0;
         for (let round = 0; round < 50; round++) {
           const one = open();
           if (round % 2) await one.get("a");
           for (let at = 0; at < 20; at++) one.get("" + at).then(() => settled++);
           if (round % 10 === 0) { globalThis.gc(); await new Promise(setImmediate); }
         }
         globalThis.gc();
         process.on("exit", () => say("settled " + settled));
       })();`,
        ["--expose-gc"],
      );
      assert.equal(printed, "settled 1000");
    });

    it("lets threads end in the middle of calls", async () => {
      const script = `${PRELUDE}
      const { parentPort, workerData } = require("node:worker_threads");
      const { RedisStore } = require(${JSON.stringify(require.resolve(".."))});
      const store = new RedisStore({ ...workerData.given, commandTimeout: ${LONGEST} });
      let calls = 0;
      const call = async (by) => {
        for (let at = 0; ; at++) {
          await store.create(session([by, at, Math.random()].join("-"))).catch(() => {});
          await store.get("nobody");
          if (++calls === workerData.calls) {
            parentPort.postMessage("busy");
            if (workerData.exits) process.exit(0);
          }
        }
      };
      for (let by = 0; by < 16; by++) call(by);`;
      // In a separate process: a crash would end this one.
      await run(
        `const { once } = require("node:events");
       const { Worker } = require("node:worker_threads");
       (async () => {
         for (let round = 0; round < 24; round++) {
           const workerData = { given: JSON.parse(process.argv[1]), calls: 1 + 20 * round, exits: round % 3 === 0 };
           const worker = new Worker(${JSON.stringify(script)}, { eval: true, workerData });
           const exit = once(worker, "exit");
           await once(worker, "message");
           if (!workerData.exits) await worker.terminate();
           await exit;
         }
       })();`,
        { args: [JSON.stringify(optionsFor(server))] },
      );
      await until(async () => (await connections()).length === 0, "their connections are gone");
      await server.call("FLUSHALL");
    });

    it("is separate for each thread", async () => {
      const store = await withFastPath();
      const script = `
      const { parentPort, workerData } = require("node:worker_threads");
      const { RedisStore } = require(${JSON.stringify(require.resolve(".."))});
      const store = new RedisStore({ ...workerData, commandTimeout: ${LONGEST} });
      (async () => {
        for (let at = 0; at < 200; at++) await store.get("nobody");
        parentPort.postMessage("open");
        parentPort.once("message", () => store.close());
      })();`;
      const workers = [1, 2].map(() => new Worker(script, { eval: true, workerData: optionsFor(server) }));
      const exits = workers.map((worker) => once(worker, "exit"));
      await Promise.all(workers.map((worker) => once(worker, "message")));
      await until(async () => (await connections()).length === 6, "each has a fast path");
      for (const worker of workers) worker.postMessage("close");
      await Promise.all(exits);
      await until(async () => (await connections()).length === 2, "theirs are gone");
      assert.equal(await store.get("nobody"), null);
      await store.close();
    });
  });
