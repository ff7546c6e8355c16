"use strict";

// Root runs the command line on the store of another user: with the privileges of that user, but root can still read
// and write its own files.

const assert = require("node:assert/strict");
const { spawnSync } = require("node:child_process");
const fs = require("node:fs");
const path = require("node:path");
const { afterEach, beforeEach, describe, it } = require("node:test");
const { startProcess } = require("./support/file-peers.js");
const { findPrefix } = require("./support/file-scripts.js");
const old = require("./support/old-stores.js");
const { Bench, asLines, finish, linesOf, session } = require("./support/cli.js");

const UID = 65534;
const nobody = ["setpriv", `--reuid=${UID}`, `--regid=${UID}`, "--clear-groups"];
const canBe =
  process.getuid?.() === 0 && findPrefix([...nobody, process.execPath, "-e", "", "--"]) !== undefined;
const skip = canBe ? false : "asks for root, who can run Node as somebody else";

let bench;
beforeEach(() => {
  bench = new Bench();
  // Other users can reach the store in it. Files that root creates in it belong to root.
  fs.chmodSync(bench.directory, 0o711);
});
afterEach(() => bench.cleanUp());

const own = (file) => fs.chownSync(file, UID, UID);
const idsOf = (text) => linesOf(text).map((line) => line.split("\t")[0]);

/** A store that belongs to the user nobody, in a folder of that user. */
async function fill(...ids) {
  await bench.fill(ids.map((id) => session(id)));
  for (const name of fs.readdirSync(bench.storePath)) own(path.join(bench.storePath, name));
  own(bench.storePath);
}

const ownersIn = (folder) => fs.readdirSync(folder).map((name) => fs.statSync(path.join(folder, name)).uid);

/** Runs a command as root, which must succeed. */
async function runs(...args) {
  const { code, stdout, stderr } = await bench.run(args);
  assert.equal(code, 0, stderr);
  return stdout;
}

it("native-store, run as another user than the app, names the user to run it as", { skip }, async () => {
  await bench.fill([session("a")]);
  fs.chmodSync(bench.storePath, 0o700);
  const { code, stderr } = await bench.run(["list"], { uid: UID, gid: UID });
  assert.equal(code, 2);
  assert.match(stderr, /cannot look into .+: permission denied\. Run this as the user of the app/);
});

describe("native-store, run by root on the store of another user,", { skip }, () => {
  it("has the privileges of that user when it opens the store", async () => {
    await fill("a");
    // The command waits for its first line with the store open.
    const child = bench.start(["import"]);
    const ended = finish(child);
    const status = () => fs.readFileSync(`/proc/${child.pid}/status`, "utf8");
    const isOpen = () =>
      fs.readdirSync(`/proc/${child.pid}/fd`).some((fd) => linkOf(child.pid, fd).endsWith("/data.mdb"));
    while (!isOpen()) await new Promise(setImmediate);
    assert.match(status(), new RegExp(`^Uid:(\t${UID}){4}$`, "m"));
    assert.match(status(), new RegExp(`^Gid:(\t${UID}){4}$`, "m"));
    assert.match(status(), /^CapEff:\t0+$/m);
    child.stdin.end(asLines([session("b")]));
    const { code, stderr } = await ended;
    assert.equal(code, 0, stderr);
    assert.deepEqual(idsOf(await runs("list")).sort(), ["a", "b"]);
  });

  it("leaves no file in the folder that the user cannot open", async () => {
    await fill("a");
    for (const name of ["lock.mdb", "owners.lock"]) fs.rmSync(path.join(bench.storePath, name));
    await runs("list");
    await runs("revoke", "--id", "a");
    assert.deepEqual(ownersIn(bench.storePath), [UID, UID, UID, UID]);
  });

  it("creates a store that belongs to the owner of the folder, or of the folder around it", async () => {
    for (const folder of ["empty", "around/new"]) {
      const [outer] = folder.split("/");
      fs.mkdirSync(bench.in(outer));
      own(bench.in(outer));
      const { code, stderr } = await bench.run(["import", "--create", "--path", folder], {
        input: asLines([session("a")]),
      });
      assert.equal(code, 0, stderr);
      assert.deepEqual(ownersIn(bench.in(folder)), [UID, UID, UID, UID]);
      assert.equal(fs.statSync(bench.in(folder)).uid, UID);
    }
  });

  it("does not follow a link that the user has put in place of a file", async () => {
    for (const name of ["owners.lock", "lock.mdb", "data.mdb", "redo.log"]) {
      await fill("a");
      const file = path.join(bench.storePath, name);
      const victim = bench.in(`victim of ${name}`);
      fs.rmSync(file);
      fs.symlinkSync(victim, file);
      const { code, stdout } = await bench.run(["revoke", "--id", "a"]);
      assert.notEqual(code, 0);
      assert.equal(stdout, "");
      assert.equal(fs.existsSync(victim), false);
      fs.rmSync(bench.storePath, { recursive: true });
    }
  });

  it("becomes the owner of the folder if root owns the data file, because the owner can replace it", async () => {
    await fill("a");
    fs.chownSync(bench.in("sessions", "data.mdb"), 0, 0);
    const { code, stderr } = await bench.run(["list"]);
    assert.equal(code, 3);
    assert.match(stderr, /data\.mdb failed: .*denied.*uid 65534, who owns the store \(ERR_STORE_IO\)$/m);
  });

  it("discards a damaged log as that user", async (t) => {
    await fill("a");
    const peer = await startProcess();
    const store = await peer.open({ path: bench.storePath });
    await store.create(session("b"));
    const { log } = await store.stats();
    await peer.kill();
    if (log === null) return t.skip("no log on this system or file system");
    const file = path.join(bench.storePath, "redo.log");
    fs.writeFileSync(file, fs.readFileSync(file).fill(1, 0, 8));
    for (const name of fs.readdirSync(bench.storePath)) own(path.join(bench.storePath, name));
    assert.match(await runs("discard-log", "--yes"), /^log discarded: 1 session is as in the log/);
    assert.equal(ownersIn(bench.storePath).length, 4);
    assert.ok(ownersIn(bench.storePath).every((owner) => owner === UID));
    assert.deepEqual(idsOf(await runs("list")).sort(), ["a", "b"]);
  });

  it("writes an export where only root may write, and leaves nothing behind if it fails", async () => {
    await fill("a", "b");
    fs.mkdirSync(bench.in("safe"), { mode: 0o700 });
    await runs("export", "safe/out");
    const found = fs.statSync(bench.in("safe", "out"));
    assert.deepEqual([found.uid, found.mode & 0o7777], [0, 0o600]);
    assert.equal(linesOf(fs.readFileSync(bench.in("safe", "out"), "utf8")).length, 2);
    await runs("export", "safe/out", "--force");

    fs.truncateSync(bench.in("sessions", "data.mdb"), 5000);
    const { code } = await bench.run(["export", "safe/none"]);
    assert.equal(code, 3);
    assert.deepEqual(fs.readdirSync(bench.in("safe")), ["out"]);
  });

  it("makes a backup where only root may write, and leaves nothing behind if it fails", async () => {
    await fill("a", "b");
    fs.mkdirSync(bench.in("safe"), { mode: 0o700 });
    await runs("backup", "safe/copy");
    for (const [file, mode] of [
      ["safe/copy", 0o700],
      ["safe/copy/data.mdb", 0o600],
    ]) {
      const found = fs.statSync(bench.in(file));
      assert.deepEqual([found.uid, found.mode & 0o7777], [0, mode], file);
    }
    assert.deepEqual(idsOf(await runs("list", "--path", "safe/copy")).sort(), ["a", "b"]);

    fs.truncateSync(bench.in("sessions", "data.mdb"), 5000);
    const { code } = await bench.run(["backup", "safe/none"]);
    assert.equal(code, 3);
    assert.deepEqual(fs.readdirSync(bench.in("safe")), ["copy"]);
  });

  it("has a process that removes the output if the command is killed", () => {
    for (const [input, left] of [
      ["", []],
      ["keep", ["out"]],
    ]) {
      fs.writeFileSync(bench.in("partial"), "half");
      const keeper = path.join(__dirname, "../lib/cli/keeper-process.js");
      // It only notices the death by the end of its input.
      const { status } = spawnSync(process.execPath, [keeper, bench.in("partial"), bench.in("out")], {
        input,
      });
      assert.equal(status, 0);
      assert.deepEqual(fs.readdirSync(bench.directory), left);
    }
  });

  it("reads files that only root may read: an export to import, and a file of secrets", async () => {
    await fill();
    fs.mkdirSync(bench.in("safe"), { mode: 0o700 });
    fs.writeFileSync(bench.in("safe", "lines"), asLines([session("a")]), { mode: 0o600 });
    await runs("import", "safe/lines");
    assert.deepEqual(idsOf(await runs("list")), ["a"]);

    fs.rmSync(bench.storePath, { recursive: true });
    fs.mkdirSync(bench.storePath);
    own(bench.storePath);
    fs.writeFileSync(bench.in("safe", "secrets"), "a secret of some length\n", { mode: 0o600 });
    const secrets = ["--secret-file", "safe/secrets"];
    await runs("import", "safe/lines", "--create", ...secrets);
    assert.deepEqual(idsOf(await runs("list", ...secrets)), ["a"]);
  });

  it("reads a database that only root may read, and removes its copy", async () => {
    await fill();
    fs.mkdirSync(bench.in("safe"), { mode: 0o700 });
    old.makeDatabase(bench.in("safe", "old.db"), old.CONNECT_SQLITE3, [
      old.connectRow("a", old.connectSession()),
    ]);
    fs.mkdirSync(bench.in("tmp"));
    fs.chmodSync(bench.in("tmp"), 0o1777);
    const { code, stderr } = await bench.run(["import", "--from", "connect-sqlite3", "safe/old.db"], {
      env: { TMPDIR: bench.in("tmp") },
    });
    assert.equal(code, 0, stderr);
    assert.deepEqual(idsOf(await runs("list")), ["a"]);
    assert.deepEqual(fs.readdirSync(bench.in("tmp")), []);
  });

  it("reports whose permissions are missing if it reads files later", async () => {
    await fill();
    fs.mkdirSync(bench.in("old"), { mode: 0o700 });
    const text = JSON.stringify({ cookie: { originalMaxAge: 1e6 }, __lastAccess: Date.now() });
    fs.writeFileSync(bench.in("old", "a.json"), text);
    const args = ["import", "--from", "session-file-store", "old"];
    const { code, stderr } = await bench.run(args);
    assert.equal(code, 2);
    assert.match(stderr, /cannot read old as uid 65534: permission denied/);
    own(bench.in("old"));
    await runs(...args);
    assert.deepEqual(idsOf(await runs("list")), ["a"]);
  });
});

function linkOf(pid, fd) {
  try {
    return fs.readlinkSync(`/proc/${pid}/fd/${fd}`);
  } catch {
    return "";
  }
}
