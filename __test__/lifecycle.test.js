"use strict";

// A store and its process: exits, worker threads, the two module systems, a second load.

const assert = require("node:assert/strict");
const { execFile } = require("node:child_process");
const { once } = require("node:events");
const { copyFileSync, mkdtempSync, readdirSync, rmSync } = require("node:fs");
const { tmpdir } = require("node:os");
const { join } = require("node:path");
const { describe, it } = require("node:test");
const { promisify } = require("node:util");
const { Worker } = require("node:worker_threads");

const root = join(__dirname, "..");
const PRELUDE = `
  const { MemoryStore } = require(${JSON.stringify(root)});
  const session = (sessionId, userId = "ann") =>
    ({ sessionId, userId, expires: new Date(Date.now() + 3600000).toISOString() });
`;

/** Runs a script in a separate process, which must exit by itself in time and without error. */
async function run(script, { prelude = PRELUDE, args = [] } = {}) {
  const { stdout } = await promisify(execFile)(process.execPath, [...args, "-e", prelude + script], {
    timeout: 60_000,
    cwd: root,
  });
  return stdout.trim();
}

/** A worker thread that runs a script. */
const work = (script, options) => new Worker(PRELUDE + script, { eval: true, ...options });

async function ends(worker) {
  const [code] = await once(worker, "exit");
  assert.equal(code, 0);
}

describe("a process", () => {
  it("ends by itself with an open store", async () => {
    assert.equal(
      await run(`const store = new MemoryStore(); store.create(session("a")).then(() => console.log("end"))`),
      "end",
    );
  });

  it("ends by itself with a store that sweeps continuously", async () => {
    await run(`globalThis.store = new MemoryStore({ sweepInterval: 1 });`);
  });

  it("ends immediately during a sweep of many sessions", async () => {
    const script = `
      (async () => {
        const store = new MemoryStore();
        for (let at = 0; at < 300000; at++) await store.create(session("s" + at, "u" + at));
        store.clean(); store.size(); store.clear();
        process.exit(0);
      })();`;
    await run(script);
  });

  it("does not wait for libuv's threads, and does not occupy them", async () => {
    const script = `
      const { pbkdf2 } = require("node:crypto");
      const done = [];
      const store = new MemoryStore();
      // The only thread of the pool is busy for some seconds.
      pbkdf2("", "", 20000000, 64, "sha512", () => done.push("pbkdf2"));
      Promise.all([store.clean(), store.size(), store.clear()]).then(() => {
        console.log(["calls", ...done].join());
        process.kill(process.pid, "SIGKILL");
      });`;
    const env = { ...process.env, UV_THREADPOOL_SIZE: "1" };
    const options = { cwd: root, env, timeout: 60_000 };
    const failed = await promisify(execFile)(process.execPath, ["-e", PRELUDE + script], options).catch(
      (error) => error,
    );
    assert.equal(failed.signal, "SIGKILL");
    assert.equal(failed.stdout, "calls\n");
  });

  it("exits normally after stores were closed and collected", async () => {
    const script = `
      (async () => {
        for (let at = 0; at < 200; at++) {
          const store = new MemoryStore({ name: at % 2 ? "shared" : undefined });
          await store.create(session("a" + at));
          if (at % 3 === 0) await store.close();
        }
        globalThis.gc();
        await new Promise(setImmediate);
        globalThis.gc();
        console.log("end");
      })();`;
    assert.equal(await run(script, { args: ["--expose-gc"] }), "end");
  });

  it("has one class with require and import", async () => {
    const script = `
      import { createRequire } from "node:module";
      import { MemoryStore, SessionStoreError, guardSession } from "@fluidauth/native-store";
      const required = createRequire(process.cwd() + "/")("@fluidauth/native-store");
      console.log(
        required.MemoryStore === MemoryStore &&
        required.SessionStoreError === SessionStoreError &&
        required.guardSession === guardSession
      );`;
    assert.equal(await run(script, { prelude: "", args: ["--input-type=module"] }), "true");
  });

  it("can load the addon twice, from one file or from two", async () => {
    const directory = mkdtempSync(join(tmpdir(), "native-store-"));
    try {
      const addon = readdirSync(root).find((file) => file.endsWith(".node"));
      copyFileSync(join(root, addon), join(directory, addon));
      const script = `
        const again = Object.keys(require.cache).filter((file) => file.startsWith(${JSON.stringify(root)}));
        for (const file of again) delete require.cache[file];
        const second = require(${JSON.stringify(root)}).MemoryStore;
        const copy = require(${JSON.stringify(join(directory, addon))});
        (async () => {
          const [one, twin] = [new MemoryStore({ name: "x" }), new second({ name: "x" })];
          await one.create(session("a"));
          const other = copy.openMemory({ name: "x" });
          copy.createJson(other, JSON.stringify(session("b")));
          console.log(MemoryStore !== second, await twin.size(), await copy.size(other), copy.get(other, "a"));
        })();`;
      assert.equal(await run(script), "true 1 1 null");
    } finally {
      rmSync(directory, { recursive: true });
    }
  });
});

describe("worker threads", () => {
  it("share a named store with each other and with the main thread", async () => {
    const { MemoryStore } = require(root);
    const store = new MemoryStore({ name: "shared by workers" });
    const script = `
      const { workerData } = require("node:worker_threads");
      (async () => {
        const store = new MemoryStore({ name: "shared by workers" });
        for (let at = 0; at < 1000; at++) await store.create(session("s" + workerData + "-" + at, "user " + workerData));
        await store.deleteByUser("user " + (workerData + 10));
      })();`;
    await Promise.all([0, 1, 2].map((workerData) => ends(work(script, { workerData }))));
    assert.equal(await store.size(), 3000);
    assert.equal((await store.getByUser("user 1")).length, 1000);
    await store.close();
  });

  it("race for one id, and one wins", async () => {
    const { MemoryStore } = require(root);
    const store = new MemoryStore({ name: "race" });
    const script = `
      const { parentPort } = require("node:worker_threads");
      (async () => {
        const store = new MemoryStore({ name: "race" });
        let won = 0;
        for (let at = 0; at < 5000; at++) await store.create(session("s" + at)).then(() => won++, () => {});
        parentPort.postMessage(won);
      })();`;
    const workers = [0, 1].map(() => work(script));
    const won = await Promise.all(workers.map(async (worker) => (await once(worker, "message"))[0]));
    assert.equal(won[0] + won[1], 5000);
    assert.equal(await store.size(), 5000);
    await store.close();
  });

  it("end by themselves with an open store", async () => {
    await ends(work(`new MemoryStore({ sweepInterval: 1 });`));
  });

  it("may be terminated in the middle of calls, and the process continues", async () => {
    const script = `
      const { Worker } = require("node:worker_threads");
      const { once } = require("node:events");
      const busy = ${JSON.stringify(PRELUDE)} + \`
        const { parentPort } = require("node:worker_threads");
        (async () => {
          const store = new MemoryStore({ name: "terminated", sweepInterval: 1 });
          for (let at = 0; ; at++) {
            await store.create(session("w" + Math.random(), "u" + at));
            if (at % 100 === 0) { store.clean(); store.size(); parentPort.postMessage(at); }
            if (at % 500 === 0) await store.clear();
          }
        })();\`;
      (async () => {
        // The main thread has not loaded the addon: the worker's end must not unmap it under its threads.
        for (let round = 0; round < 5; round++) {
          const worker = new Worker(busy, { eval: true });
          await once(worker, "message");
          await worker.terminate();
        }
        ${PRELUDE}
        const store = new MemoryStore({ name: "terminated" });
        await store.create(session("after"));
        console.log((await store.get("after")).userId);
      })();`;
    assert.equal(await run(script, { prelude: "" }), "ann");
  });

  it("can pass on a name: the store lives while any of them has it open", async () => {
    const script = `
      const { Worker } = require("node:worker_threads");
      const { once } = require("node:events");
      const thread = (body) => new Worker(${JSON.stringify(PRELUDE)} + body, { eval: true });
      (async () => {
        const holder = thread(\`
          const { parentPort } = require("node:worker_threads");
          globalThis.store = new MemoryStore({ name: "handed on" });
          store.create(session("a")).then(() => parentPort.postMessage("ready"));
          parentPort.on("message", () => parentPort.close());\`);
        await once(holder, "message");
        const store = new MemoryStore({ name: "handed on" });
        holder.postMessage("end");
        await once(holder, "exit");
        console.log(await store.size());
        await store.close();
        console.log(await new MemoryStore({ name: "handed on" }).size());
      })();`;
    assert.equal(await run(script), "1\n0");
  });
});
