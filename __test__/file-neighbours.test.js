"use strict";

// Other users of a store: stopped processes, containers with equal PIDs, other copies of this package in the process.

const assert = require("node:assert/strict");
const fs = require("node:fs");
const path = require("node:path");
const { describe, it } = require("node:test");
const { setTimeout: sleep } = require("node:timers/promises");
const { FileStore } = require("..");
const { makePlace, skip } = require("./support/file-places.js");
const { ROOT, findPrefix, run, start } = require("./support/file-scripts.js");
const { session } = require("./support/file-session.js");
const { copyPackage } = require("./support/package-copy.js");

const place = makePlace();

const BUSY = `
  const store = new FileStore(JSON.parse(process.argv[1]));
  let done = 0;
  const write = async (by) => {
    for (let at = 0; ; at++) {
      const id = by + "-" + at % 100;
      await store.delete(id);
      await store.create(session(id, { blob: "x".repeat(1000) }));
      if (++done % 200 === 0) say("busy");
    }
  };
  for (let by = 0; by < 32; by++) write(by);
  process.stdin.on("end", () => process.exit()).resume();`;

/** Resolves when the process has stopped. */
async function hasStopped(pid) {
  const state = () => fs.readFileSync(`/proc/${pid}/stat`, "utf8").split(") ").at(-1)[0];
  while (state() !== "T") await new Promise(setImmediate);
}

describe("a neighbour that is stopped while it writes", { skip }, () => {
  it("blocks no read, and no write once it continues", async (t) => {
    const options = { path: place.next() };
    const store = new FileStore(options);
    for (let at = 0; at < 100; at++) await store.create(session(`mine-${at}`, { userId: "me" }));
    const neighbour = start(BUSY, { args: [JSON.stringify(options)] });
    let slowest = 0;
    let held = 0;
    const read = async (call) => {
      const began = performance.now();
      await call();
      slowest = Math.max(slowest, performance.now() - began);
    };
    for (let round = 0; round < 30; round++) {
      assert.equal(await neighbour.hear(), "busy");
      neighbour.child.kill("SIGSTOP");
      await hasStopped(neighbour.child.pid);
      let isWritten = false;
      const write = store.create(session(`during ${round}`)).then(() => {
        isWritten = true;
      });
      for (let at = 0; at < 100; at++) {
        await read(async () => assert.notEqual(await store.get(`mine-${at}`), null));
      }
      await read(async () => assert.equal((await store.getByUser("me")).length, 100));
      await read(() => store.size());
      if (!isWritten) held++;
      neighbour.child.kill("SIGCONT");
      await write;
      assert.notEqual(await store.get(`during ${round}`), null);
    }
    t.diagnostic(`slowest read: ${slowest.toFixed(1)} ms; the neighbour held up ${held} writes of 30`);
    // A call that waits for the neighbour would wait forever.
    assert.ok(slowest < 5000, `a read took ${slowest} ms`);
    await neighbour.end();
    await store.close();
  });

  it("in the middle of a write does not prevent others from opening the store, reading and exiting", async () => {
    const options = { path: place.next() };
    const store = new FileStore(options);
    await store.create(session("mine"));
    await store.create(session("due", { expires: new Date(1) }));
    const neighbour = start(BUSY, { args: [JSON.stringify(options)] });
    let write;
    for (let isHeld = false; !isHeld; ) {
      await neighbour.hear();
      neighbour.child.kill("SIGSTOP");
      await hasStopped(neighbour.child.pid);
      write = store.touch("mine", Date.now() + 1e6);
      isHeld = await Promise.race([write.then(() => false), sleep(500, true)]);
      if (!isHeld) neighbour.child.kill("SIGCONT");
    }
    const printed = await run(
      `const store = new FileStore({ ...JSON.parse(process.argv[1]), sweepInterval: 1 });
       // Its sweep waits for the neighbour.
       setTimeout(() => store.get("mine").then(({ userId }) => say(userId)), 50);`,
      { args: [JSON.stringify(options)], timeout: 30_000 },
    );
    assert.equal(printed, "ann");
    neighbour.child.kill("SIGCONT");
    assert.equal(await write, true);
    await neighbour.end();
    await store.close();
  });

  it("and then killed blocks no write", async () => {
    const options = { path: place.next() };
    const store = new FileStore(options);
    for (let round = 0; round < 10; round++) {
      const neighbour = start(BUSY, { args: [JSON.stringify(options)] });
      await neighbour.hear();
      neighbour.child.kill("SIGSTOP");
      await hasStopped(neighbour.child.pid);
      const write = store.create(session(`during ${round}`));
      await neighbour.kill();
      await write;
    }
    await store.close();
  });
});

describe("lock.mdb, when it was removed from an open store,", { skip }, () => {
  const OPEN = `
    try {
      new FileStore(JSON.parse(process.argv[1])).size().then((size) => say("size " + size));
    } catch (error) {
      say(error.code + " " + error.message);
    }`;

  it("prevents others from opening the store, because processes without a common lock file would destroy it", async () => {
    const options = { path: place.next() };
    const args = [JSON.stringify(options)];
    const store = new FileStore(options);
    await store.create(session("a"));
    fs.rmSync(path.join(options.path, "lock.mdb"));
    assert.match(await run(OPEN, { args }), /^ERR_STORE_LOCKED .*lock\.mdb is gone while another process /);
    assert.equal(fs.existsSync(path.join(options.path, "lock.mdb")), false);
    await store.create(session("b"));
    await store.close();
    assert.equal(await run(OPEN, { args }), "size 2");
  });

  it("is created by one of many processes that open a restored backup concurrently", async () => {
    const source = new FileStore({ path: place.next() });
    await source.create(session("a"));
    for (let round = 0; round < 5; round++) {
      const options = { path: place.next() };
      await source.backup(options.path);
      const answers = await Promise.all(
        Array.from({ length: 6 }, () => run(OPEN, { args: [JSON.stringify(options)] })),
      );
      assert.deepEqual(answers, Array(6).fill("size 1"));
    }
    await source.close();
  });
});

// A command that gives each container its own PIDs: as root, or as a user who may create a namespace.
const NUMBERS = ["--pid", "--fork", "--kill-child", "--mount-proc"];
const container = skip ? undefined : findPrefix(["unshare", ...NUMBERS], ["unshare", "-r", ...NUMBERS]);
const skipContainers = skip || (container === undefined && "unshare makes no process namespace here");

describe("containers whose processes have the same PID", { skip: skipContainers }, () => {
  const HOLD = `
    const store = new FileStore(JSON.parse(process.argv[1]));
    store.create(session("of " + process.argv[2])).then(() => say(process.pid));
    process.stdin.on("end", () => process.exit()).resume();`;
  const TRY = `
    try {
      new FileStore(JSON.parse(process.argv[1])).size().then((size) => say(process.pid + " " + size));
    } catch (error) {
      say(JSON.stringify({ name: error.name, code: error.code, message: error.message }));
    }`;

  it("are refused the store until the first has ended, however it ended", async () => {
    const options = { path: place.next() };
    const args = (name) => [JSON.stringify(options), name];
    for (const [round, end] of ["end", "kill", "end"].entries()) {
      const first = start(HOLD, { prefix: container, args: args(`round ${round}`) });
      assert.equal(await first.hear(), "1");
      const refused = JSON.parse(await run(TRY, { prefix: container, args: args() }));
      assert.equal(refused.code, "ERR_STORE_LOCKED");
      assert.equal(refused.name, "SessionStoreError");
      assert.match(refused.message, new RegExp(`^${options.path} is open .*\\(1\\)`));
      // A process with another PID is accepted.
      const outside = new FileStore(options);
      assert.equal(await outside.size(), round + 1);
      await outside.close();
      await first[end]();
      const next = await runUntilFree(() => run(TRY, { prefix: container, args: args() }));
      assert.equal(next, `1 ${round + 1}`);
    }
  });
});

/** A process in a namespace briefly outlives the process that created the namespace. */
async function runUntilFree(attempt) {
  for (let tries = 0; ; tries++) {
    const answer = await attempt();
    if (tries === 20 || !answer.includes("ERR_STORE_LOCKED")) return answer;
  }
}

describe("another copy of the package", { skip }, () => {
  const copy = skip ? undefined : require(copyPackage(place.next()).target);

  it("in one process is refused an open store, which continues", async () => {
    const options = { path: place.next() };
    const store = new FileStore(options);
    await store.create(session("a"));
    const isLocked = (error) => {
      assert.ok(error instanceof copy.SessionStoreError);
      assert.equal(error.code, "ERR_STORE_LOCKED");
      return error.message.startsWith(options.path);
    };
    for (let tries = 0; tries < 10; tries++) assert.throws(() => new copy.FileStore(options), isLocked);

    // If the attempts had released the first one's locks, another process would now undo its writes.
    const neighbour = start(BUSY, { args: [JSON.stringify(options)] });
    await neighbour.hear();
    for (let at = 0; at < 300; at++) await store.create(session(`beside ${at}`, { userId: "me" }));
    await neighbour.end();
    assert.equal((await store.getByUser("me")).length, 300);

    await store.close();
    const others = new copy.FileStore(options);
    assert.throws(() => new FileStore(options), { code: "ERR_STORE_LOCKED" });
    assert.equal((await others.getByUser("me")).length, 300);
    await others.close();
    await new FileStore(options).close();
  });
});

describe("the package loaded again from the same files", { skip }, () => {
  /** Loads the package like test runners do: modules in a separate context and cache, addons by Node. */
  function loadAnew() {
    const { createRequire } = require("node:module");
    const vm = require("node:vm");
    const context = vm.createContext({ process, Buffer, setImmediate });
    const loaded = new Map();
    const load = (file) => {
      if (loaded.has(file)) return loaded.get(file).exports;
      const module = { exports: {} };
      loaded.set(file, module);
      const real = createRequire(file);
      const require = (name) => {
        const found = real.resolve(name);
        return found.startsWith(ROOT) && found.endsWith(".js") ? load(found) : real(name);
      };
      const wrapper = `(function (module, exports, require, __dirname, __filename) {${fs.readFileSync(file)}\n})`;
      const run = vm.runInContext(wrapper, context, { filename: file });
      run(module, module.exports, require, path.dirname(file), file);
      return module.exports;
    };
    return load(path.join(ROOT, "index.js"));
  }

  it("works, and shares a store with the first", async () => {
    const options = { path: place.next() };
    const anew = loadAnew();
    assert.notEqual(anew.FileStore, FileStore);
    const [store, other] = [new FileStore(options), new anew.FileStore(options)];
    const given = session("a", { cart: [1] });
    await other.create(given);
    assert.equal(JSON.stringify(await store.get("a")), JSON.stringify(given));
    await assert.rejects(
      store.create(given).then(
        () => other.create(given),
        () => other.create(given),
      ),
      (error) => error instanceof anew.SessionStoreError && error.code === "ERR_SESSION_EXISTS",
    );
    await store.close();
    assert.equal(await other.touch("a", Date.now() + 1e6), true);
    assert.equal(await other.deleteByUser("ann"), 1);
    await other.close();
  });
});
