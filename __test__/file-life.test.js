"use strict";

// FileStores and their processes and threads: exits, kills, closing.

const assert = require("node:assert/strict");
const { once } = require("node:events");
const fs = require("node:fs");
const { describe, it } = require("node:test");
const { Worker } = require("node:worker_threads");
const { FileStore } = require("..");
const { makePlace, skip } = require("./support/file-places.js");
const { PRELUDE, run } = require("./support/file-scripts.js");
const { session } = require("./support/file-session.js");
const { withStore } = require("./support/file-store.js");

const place = makePlace();

describe("a process", { skip }, () => {
  it("has written what it began last before it ends by itself", async () => {
    const options = { path: place.next() };
    const args = [JSON.stringify(options)];
    await run(
      `const store = new FileStore(JSON.parse(process.argv[1]));
       for (let at = 0; at < 1000; at++) store.create(session("s" + at));`,
      { args },
    );
    assert.equal(await withStore(options, (store) => store.size()), 1000);
    await run(
      `const store = new FileStore(JSON.parse(process.argv[1]));
       for (let at = 0; at < 1000; at++) at % 2 ? store.delete("s" + at) : store.touch("s" + at, new Date(1));
       store.create(session("last"));`,
      { args },
    );
    await withStore(options, async (store) => {
      assert.equal(await store.size(), 1);
      assert.equal((await store.get("last")).userId, "ann");
    });
  });

  it("ends immediately with a store that is idle, or that sweeps continuously", async () => {
    for (const sweepInterval of [0, 1, 60_000]) {
      await run(
        `const store = new FileStore(JSON.parse(process.argv[1]));
         store.create(session("a")).then(() => store.get("a"));`,
        { args: [JSON.stringify({ path: place.next(), sweepInterval })], timeout: 20_000 },
      );
    }
  });

  it("may exit in the middle of writes, each of which happens completely or not at all", async () => {
    const options = { path: place.next() };
    for (let round = 0; round < 5; round++) {
      const acknowledged = await run(
        `const store = new FileStore(JSON.parse(process.argv[1]));
         const name = (at) => "r" + process.argv[2] + "-" + at;
         let done = 0;
         const write = async (by) => {
           for (let at = by; ; at += 16) {
             await store.create(session(name(at)));
             say(name(at));
             if (++done === 200) process.exit(0);
           }
         };
         for (let by = 0; by < 16; by++) write(by);`,
        { args: [JSON.stringify(options), `${round}`] },
      );
      await withStore(options, async (store) => {
        for (const id of acknowledged.split("\n")) assert.notEqual(await store.get(id), null);
      });
    }
  });

  it("has closed its files when close resolves, also during a sweep and other calls", async () => {
    const path = place.next();
    for (let round = 0; round < 5; round++) {
      const store = new FileStore({ path, sweepInterval: 1 });
      const past = new Date(Date.now() - 1).toISOString();
      const expired = Array.from({ length: 3000 }, (_, at) => session(`${round}-${at}`, { expires: past }));
      await Promise.all(expired.map((one) => store.create(one)));
      const calls = [store.getByUser("somebody"), store.clean(), store.verify()];
      await store.close();
      // If the store were still open, it would need the same options.
      const next = new FileStore({ path, sweepInterval: 0 });
      await next.close();
      await Promise.allSettled(calls);
    }
  });

  it("exits normally after many stores were opened, closed, dropped and collected", async () => {
    const printed = await run(
      `(async () => {
         for (let at = 0; at < 60; at++) {
           const store = new FileStore({ path: process.argv[1] + "/" + at % 7 });
           await store.create(session("a" + at));
           if (at % 3 === 0) await store.close();
           if (at % 10 === 0) { globalThis.gc(); await new Promise(setImmediate); }
         }
         let all = 0;
         for (let at = 0; at < 7; at++) all += await new FileStore({ path: process.argv[1] + "/" + at }).size();
         console.log(all);
       })();`,
      { args: [place.next()], flags: ["--expose-gc"] },
    );
    assert.equal(printed, "60");
  });
});

describe("a thread", { skip }, () => {
  const IN_THREAD = `const { parentPort, workerData } = require("node:worker_threads");`;
  const threadOf = (script, workerData) =>
    new Worker(PRELUDE + IN_THREAD + script, { eval: true, workerData });

  it("has written what it began last before it ends by itself", async () => {
    const options = { path: place.next() };
    const script = `
      const store = new FileStore(workerData);
      for (let at = 0; at < 1000; at++) store.create(session("s" + at));`;
    const [code] = await once(threadOf(script, options), "exit");
    assert.equal(code, 0);
    assert.equal(await withStore(options, (store) => store.size()), 1000);
  });

  const BUSY = `
    // Counts acknowledged writes in shared memory, however this thread ends.
    const acknowledged = new Int32Array(workerData.acknowledged);
    const store = new FileStore(workerData.options);
    const write = async (by) => {
      for (let at = 0; ; at++) {
        await store.create(session([workerData.name, by, at].join("-"), { userId: workerData.name }));
        Atomics.store(acknowledged, by, at + 1);
        if (at % 10 === 0) store.getByUser(workerData.name);
        if (by + at === 3) parentPort.postMessage("busy");
      }
    };
    for (let by = 0; by < acknowledged.length; by++) write(by);`;

  /** Ends a thread while it writes, and checks its acknowledged writes. */
  async function terminateOne(options, name, store) {
    const acknowledged = new Int32Array(new SharedArrayBuffer(8 * 4));
    const worker = threadOf(BUSY, { options, name, acknowledged: acknowledged.buffer });
    await once(worker, "message");
    for (let at = 0; at < 20; at++) await store?.create(session(`of main ${name} ${at}`));
    await worker.terminate();
    const check = async (store) => {
      for (const [by, count] of acknowledged.entries()) {
        assert.ok(count > 0 || by > 3);
        for (let at = 0; at < count; at++) {
          assert.notEqual(await store.get(`${name}-${by}-${at}`), null);
        }
      }
      assert.ok((await store.getByUser(name)).length >= acknowledged.reduce((sum, count) => sum + count));
      await store.create(session(`after ${name}`));
    };
    await (store ? check(store) : withStore(options, check));
  }

  it("that is terminated in mid-write does not affect others, whether they have the store open or not", async () => {
    const options = { path: place.next() };
    for (let round = 0; round < 10; round++) await terminateOne(options, `alone ${round}`);
    await withStore(options, async (store) => {
      for (let round = 0; round < 10; round++) await terminateOne(options, `beside ${round}`, store);
      await Promise.all([0, 1, 2].map((at) => terminateOne(options, `of three ${at}`, store)));
    });
  });

  it("that is terminated does not affect others if no other thread has loaded the package", async () => {
    await run(
      `const { Worker } = require("node:worker_threads");
       const { once } = require("node:events");
       (async () => {
         for (let round = 0; round < 5; round++) {
           const workerData = {
             options: { path: process.argv[1] }, name: "w" + round, acknowledged: new SharedArrayBuffer(32),
           };
           const worker = new Worker(process.argv[2], { eval: true, workerData });
           await once(worker, "message");
           await worker.terminate();
         }
         if ((await new FileStore({ path: process.argv[1] }).getByUser("w4")).length < 1) process.exitCode = 1;
       })();`,
      {
        args: [place.next(), PRELUDE + IN_THREAD + BUSY],
      },
    );
  });
});

describe("close", { skip }, () => {
  it("completes earlier calls, and refuses later ones", async () => {
    const options = { path: place.next() };
    const store = new FileStore(options);
    const begun = Array.from({ length: 1000 }, (_, at) => store.create(session(`${at}`)));
    const closed = store.close();
    await assert.rejects(store.create(session("late")), { code: "ERR_STORE_CLOSED" });
    await closed;
    // Reopening does not wait for their promises.
    assert.equal(await withStore(options, (again) => again.size()), 1000);
    await Promise.all(begun);
    await store.close();
  });

  it("may be followed by an open immediately, many times", async () => {
    const options = { path: place.next() };
    const closings = [];
    for (let round = 0; round < 200; round++) {
      // If the earlier close was not awaited, this may be the closing store.
      const store = new FileStore(options);
      const begun = store.create(session(`${round}`));
      if (round % 2) await begun;
      closings.push(store.close());
      if (round % 3 === 0) await closings.at(-1);
    }
    await Promise.all(closings);
    assert.equal(await withStore(options, (store) => store.size()), 200);
  });

  it("may follow calls on other threads, many times", async () => {
    const path = place.next();
    for (let round = 0; round < 100; round++) {
      const store = new FileStore({ path, sweepInterval: 1 });
      await Promise.all([store.size(), store.clean(), store.deleteByUser("nobody"), store.verify()]);
      await store.close();
    }
  });

  it("of all stores leaves nothing open", async () => {
    const options = { path: place.next() };
    const openFiles = () =>
      fs
        .readdirSync("/proc/self/fd")
        .map((fd) => {
          try {
            return fs.readlinkSync(`/proc/self/fd/${fd}`);
          } catch {
            return "";
          }
        })
        .filter((file) => file.startsWith(options.path));
    for (let round = 0; round < 20; round++) {
      const stores = Array.from({ length: 3 }, () => new FileStore(options));
      await stores[round % 3].create(session(`${round}`));
      assert.notEqual(openFiles().length, 0);
      for (const store of stores) await store.close();
    }
    while (openFiles().length > 0) await new Promise(setImmediate);
  });
});

describe("a store whose files are gone while it is open", { skip }, () => {
  const ways = {
    "the folder was removed": (dir) => fs.rmSync(dir, { recursive: true }),
    "the folder was emptied": (dir) => {
      for (const name of fs.readdirSync(dir)) fs.rmSync(`${dir}/${name}`);
    },
    "the folder was moved": (dir) => fs.renameSync(dir, `${dir}-moved`),
    "another data file is in its place": (dir) => {
      fs.copyFileSync(`${dir}/data.mdb`, `${dir}/copy`);
      fs.renameSync(`${dir}/copy`, `${dir}/data.mdb`);
    },
  };
  for (const [what, remove] of Object.entries(ways)) {
    it(`leaves its path to a new one: ${what}`, async () => {
      const options = { path: place.next() };
      const former = new FileStore(options);
      await former.create(session("a"));
      remove(options.path);
      await withStore(options, async (store) => {
        const copied = what.startsWith("another") ? 1 : 0;
        assert.equal(await store.size(), copied);
        await store.create(session("b"));
        for (const call of [() => former.create(session("c")), () => former.get("a"), () => former.size()]) {
          await assert.rejects(call, {
            code: "ERR_STORE_IO",
            message: `the files of the store in ${options.path} were removed, moved or replaced while it was open. Close the store and open the path again`,
          });
        }
        assert.equal(await store.get("c"), null);
        // Its end must not affect the other store.
        await former.close();
        await store.create(session("d"));
        await withStore(options, async (again) => assert.notEqual(await again.get("d"), null));
      });
      await withStore(options, async (store) => assert.notEqual(await store.get("b"), null));
    });
  }

  it("can be opened in its new place", async () => {
    const options = { path: place.next() };
    const former = new FileStore(options);
    await former.create(session("a"));
    fs.renameSync(options.path, `${options.path}-moved`);
    await withStore({ path: `${options.path}-moved` }, async (store) => {
      assert.notEqual(await store.get("a"), null);
      await store.create(session("b"));
    });
    await former.close();
  });

  it("is one store by two paths to its folder", async () => {
    const options = { path: place.next() };
    const link = place.next();
    await withStore(options, async (store) => {
      fs.symlinkSync(options.path, link);
      await withStore({ path: link }, (other) => other.create(session("a")));
      assert.notEqual(await store.get("a"), null);
    });
  });
});

describe("an opening that fails", { skip }, () => {
  it("leaves no files in an empty folder", async () => {
    const path = place.next();
    fs.mkdirSync(path);
    // Files can be created there, but nothing can be written to them.
    await run(
      `try {
         new FileStore({ path: process.argv[1] });
         process.exitCode = 1;
       } catch ({ code, message }) {
         if (code !== "ERR_STORE_IO") throw new Error(message);
       }`,
      { prefix: ["sh", "-c", 'ulimit -f 0; trap "" XFSZ; exec "$@"', "sh"], args: [path] },
    ).catch((error) => assert.fail(error.stderr));
    assert.deepEqual(fs.readdirSync(path), []);
    await withStore({ path }, (store) => store.create(session("a")));
  });
});
