"use strict";

// The command that discards a missing or damaged redo log.

const assert = require("node:assert/strict");
const fs = require("node:fs");
const path = require("node:path");
const { afterEach, beforeEach, describe, it } = require("node:test");
const { FileStore } = require("..");
const { Bench, hasTerminals, linesOf, session } = require("./support/cli.js");
const { startProcess } = require("./support/file-peers.js");
const { skip } = require("./support/file-places.js");

const SECRET = "a secret of some length";
const RING = 4096;
const NO_LOG = "no log on this system or file system";

let bench;
beforeEach(() => {
  bench = new Bench();
});
afterEach(() => bench.cleanUp());

const logPath = () => bench.in("sessions", "redo.log");
const filesOf = () => fs.readdirSync(bench.storePath).filter((name) => !/lock/.test(name));
const bytesOf = () => filesOf().map((name) => [name, fs.readFileSync(bench.in("sessions", name), "hex")]);

/** Returns where each batch starts in the file. */
function batchesOf(log) {
  const places = [];
  for (let at = RING; log.toString("latin1", at, at + 4) === "redo"; at += log.readUInt32LE(at + 8)) {
    places.push(at);
  }
  return places;
}

/**
 * Makes a store whose process was killed. `base` was in the data file, `early` and `late` are only in the log, and the
 * end of `base` is last in the log. Returns whether such a store is possible here.
 */
async function killStore(t, secret) {
  const options = secret === undefined ? {} : { secret };
  await bench.fill([session("base", "ann"), session("kept", "ann")], options);
  const peer = await startProcess();
  const store = await peer.open({ path: bench.storePath, sweepInterval: 0, ...options });
  await store.create(session("early", "ann"));
  await store.create(session("late", "bob"));
  await store.create(session("later", "bob"));
  await store.delete("base");
  const { log } = await store.stats();
  await peer.kill();
  if (log === null) t.skip(NO_LOG);
  return log !== null;
}

/** Damages one batch of the log. */
function damage(batch) {
  const log = fs.readFileSync(logPath());
  log[batchesOf(log)[batch] + 50] ^= 1;
  fs.writeFileSync(logPath(), log);
}

async function idsOf(options) {
  const store = new FileStore({ path: bench.storePath, sweepInterval: 0, ...options });
  const ids = [];
  for await (const id of store.ids()) ids.push(id);
  const { problems } = await store.verify();
  await store.close();
  assert.deepEqual(problems, []);
  return ids.sort();
}

describe("native-store discard-log", { skip }, () => {
  it("is named by the error of a refused store", async (t) => {
    if (!(await killStore(t))) return;
    fs.rmSync(logPath());
    for (const args of [["list"], ["verify"], ["revoke", "--user", "ann"]]) {
      const { code, stderr } = await bench.run(args);
      assert.equal(code, 3);
      assert.match(
        stderr,
        /redo\.log .+ it is missing\. .+native-store discard-log .+\(ERR_STORE_CORRUPT\)\n$/,
      );
    }
    assert.throws(() => new FileStore({ path: bench.storePath }), /native-store discard-log/);
  });

  for (const secret of [undefined, SECRET]) {
    const kind = secret ? "encrypted" : "plain";
    const env = {};

    it(`reports the loss, and does nothing without --yes (${kind})`, async (t) => {
      if (!(await killStore(t, secret))) return;
      damage(1);
      const before = bytesOf();
      const { code, stdout, stderr } = await bench.run(["discard-log"], { env });
      assert.deepEqual([code, stdout], [2, ""]);
      assert.match(stderr, /cannot be recovered: a part that was on disk is gone\n/);
      assert.match(stderr, /^ {2}log +\S+redo\.log, 4\.0 MiB, last written 20\d\d-\S+Z$/m);
      assert.match(stderr, /^ {2}data file +\S+data\.mdb, last written 20\d\d-\S+Z$/m);
      assert.match(stderr, /^ {2}kept +1 change of sessions/m);
      assert.match(stderr, /^ {2}lost +at least \d+ B .+ 2 later changes/m);
      assert.match(stderr, /logout/);
      assert.match(stderr, /native-store revoke/);
      assert.match(stderr, /\nnative-store: nothing was changed: .*--yes was not given\n$/);
      assert.deepEqual(bytesOf(), before);
    });

    it(`discards the log with --yes, and needs no secret (${kind})`, async (t) => {
      if (!(await killStore(t, secret))) return;
      damage(1);
      const log = fs.readFileSync(logPath());
      const { code, stdout, stderr } = await bench.run(["discard-log", "--yes"], { env });
      assert.equal(code, 0, stderr);
      const [counts, place] = linesOf(stdout);
      assert.equal(counts, "log discarded: 1 session is as in the log, 1 was ended by it");
      const aside = /^the damaged log is now (.+)$/.exec(place)[1];
      assert.deepEqual(fs.readFileSync(aside), log);
      if (process.platform !== "win32") assert.equal(fs.statSync(aside).mode & 0o7777, 0o600);
      assert.match(stderr, /native-store verify/);
      assert.deepEqual(filesOf().sort(), ["data.mdb", path.basename(aside)]);
      // The end of `base` is after the damage, and readable.
      assert.deepEqual(await idsOf(secret === undefined ? {} : { secret }), ["early", "kept"]);
    });
  }

  it("discards a missing log", async (t) => {
    if (!(await killStore(t))) return;
    fs.rmSync(logPath());
    const { code, stdout, stderr } = await bench.run(["discard-log", "--yes"]);
    assert.equal(code, 0, stderr);
    assert.match(stderr, /cannot be recovered: it is missing\n/);
    assert.match(stderr, /^ {2}kept +nothing/m);
    assert.deepEqual(linesOf(stdout), ["log discarded: 0 sessions are as in the log, 0 were ended by it"]);
    assert.deepEqual(await idsOf(), ["base", "kept"]);
  });

  it("prints only its answer with --quiet", async (t) => {
    if (!(await killStore(t))) return;
    damage(0);
    const { code, stdout, stderr } = await bench.run(["discard-log", "--yes", "--quiet"]);
    assert.deepEqual([code, linesOf(stdout).length, stderr], [0, 2, ""]);
  });

  it("has nothing to do if the log is sound or not needed", async (t) => {
    if (!(await killStore(t))) return;
    const before = bytesOf();
    const { code, stdout, stderr } = await bench.run(["discard-log", "--yes"]);
    assert.deepEqual([code, stdout], [1, ""]);
    assert.match(stderr, /^native-store: nothing to do: the redo log .+ is sound\b[^\n]+\n$/);
    assert.deepEqual(bytesOf(), before);
    assert.deepEqual(await idsOf(), ["early", "kept", "late", "later"]);
    const again = await bench.run(["discard-log", "--yes"]);
    assert.deepEqual([again.code, again.stdout], [1, ""]);
    assert.match(again.stderr, /^native-store: nothing to do: the store in .+ needs no redo log[^\n]*\n$/);
  });

  it("refuses a store that a process has open", async (t) => {
    const store = bench.open();
    await store.create(session("a"));
    if ((await store.stats()).log === null) return t.skip(NO_LOG);
    const { code, stdout, stderr } = await bench.run(["discard-log", "--yes"]);
    assert.deepEqual([code, stdout], [3, ""]);
    assert.match(stderr, /Stop all processes.+\(ERR_STORE_LOCKED\)\n$/);
    assert.notEqual(await store.get("a"), null);
  });

  it("is only for a FileStore", async () => {
    const missing = await bench.run(["discard-log", "--yes"]);
    assert.equal(missing.code, 2);
    assert.match(missing.stderr, /no store at \.\/sessions/);
    const redis = await bench.run(["discard-log", "--yes", "--redis", "redis://localhost"]);
    assert.equal(redis.code, 2);
    assert.match(redis.stderr, /discard-log is for a FileStore/);
  });

  describe("in a terminal", { skip: !hasTerminals() && "needs the script of util-linux" }, () => {
    for (const [answer, isYes] of [
      ["y\n", true],
      ["YES\n", true],
      ["\n", false],
      ["n\n", false],
      ["yesterday\n", false],
      ["", false],
    ]) {
      it(`asks, and takes ${JSON.stringify(answer)} for ${isYes ? "a yes" : "a no"}`, async (t) => {
        if (!(await killStore(t))) return;
        damage(1);
        const before = bytesOf();
        const { code, screen } = bench.runInTerminal(["discard-log"], {}, answer);
        assert.match(screen, /Discard the log\? \[y\/N\] /);
        assert.equal(code, isYes ? 0 : 1, screen);
        assert.match(screen, isYes ? /log discarded: / : /nothing was changed/);
        if (!isYes) assert.deepEqual(bytesOf(), before);
      });
    }
  });
});
