"use strict";

// A FileStore while its disk or another process blocks it: a process that was stopped in the middle of a write holds
// LMDB's lock.

const assert = require("node:assert/strict");
const fs = require("node:fs");
const { describe, it } = require("node:test");
const { setTimeout: sleep } = require("node:timers/promises");
const { FileStore } = require("..");
const { makePlace, skip } = require("./support/file-places.js");
const { start } = require("./support/file-scripts.js");
const { session } = require("./support/file-session.js");

const place = makePlace({ onDisk: true });
const TIMEOUT = 2000;
// Milliseconds. An unblocked write completes within this, even on a busy machine.
const HELD = 1000;

const HOLDER = `
  const store = new FileStore({ path: process.argv[1] });
  let at = 0;
  const batch = () => Promise.all(Array.from({ length: 500 }, () =>
    store.create(session("h" + at++, { blob: "x".repeat(3000) }))));
  // Some batches always wait, so that it commits almost continuously.
  for (let chain = 0; chain < 4; chain++) (async () => { for (;;) { await batch(); say("busy"); } })();
  process.stdin.on("end", () => process.exit()).resume();`;

/** Returns how a call ends: the code and the outcome of its error. */
const code = (call) =>
  call.then(
    () => "done",
    (error) => [error.code, error.outcome],
  );

/** Opens a store, and starts a process that is stopped while it holds the store's lock. */
async function openHeld(options) {
  const path = place.next();
  const store = new FileStore({ path, commandTimeout: TIMEOUT, sweepInterval: 0, ...options });
  await store.create(session("old"));
  const holder = start(HOLDER, { args: [path] });
  for (;;) {
    assert.equal(await holder.hear(), "busy");
    await sleep(10);
    holder.child.kill("SIGSTOP");
    while (fs.readFileSync(`/proc/${holder.child.pid}/stat`, "utf8").split(") ").at(-1)[0] !== "T") {
      await sleep(1);
    }
    const begun = code(store.touch("old", Date.now() + 1e6));
    const outcome = await Promise.race([begun, sleep(HELD, "held")]);
    if (outcome !== "done") return { store, holder, path, begun };
    holder.child.kill("SIGCONT");
  }
}

describe("while a stopped process holds the store,", { skip }, () => {
  it("writes end by their deadline with their outcome, and reads continue", async () => {
    const { store, holder } = await openHeld();
    await sleep(1);
    // The call above blocks the writer, so these are queued.
    const calls = [store.create(session("new")), store.delete("old"), store.deleteByUser("somebody")];
    const seen = store.get("new");
    assert.notEqual(await store.get("h0"), null);
    assert.equal(await store.get("nobody"), null);
    assert.ok((await store.size()) > 0);
    assert.deepEqual(await Promise.all(calls.map(code)), Array(3).fill(["ERR_STORE_TIMEOUT", undefined]));
    assert.deepEqual(await code(seen), ["ERR_STORE_TIMEOUT", undefined]);
    await holder.kill();
    // The queued writes have changed nothing.
    await store.create(session("later"));
    assert.equal(await store.get("new"), null);
    assert.notEqual(await store.get("old"), null);
    await store.close();
  });

  it("a started write has an unknown outcome", async () => {
    const { store, holder, begun } = await openHeld();
    assert.deepEqual(await begun, ["ERR_STORE_TIMEOUT", "unknown"]);
    await holder.kill();
    await store.close();
  });

  it("calls that wait for a thread keep their own deadline, and so does a concurrent close", async () => {
    const { store, holder } = await openHeld();
    const calls = [store.create(session("new", { userId: "ada" }))];
    for (let at = 0; at < 12; at++) calls.push(store.getByUser("ada"));
    const size = store.size();
    const ended = Promise.all([...calls.map(code), code(size), code(store.close())]);
    // One after the other they would take six times as long.
    const outcome = await Promise.race([ended, sleep(4 * TIMEOUT, "they hang")]);
    assert.notEqual(outcome, "they hang");
    const [created, ...found] = outcome.slice(0, 13);
    assert.deepEqual(created, ["ERR_STORE_TIMEOUT", undefined]);
    // After the create has timed out, there is nothing more to wait for.
    for (const one of found) if (one !== "done") assert.deepEqual(one, ["ERR_STORE_TIMEOUT", undefined]);
    await holder.kill();
  });

  it("a second opener has the deadline of the first", async () => {
    const { store, holder, path } = await openHeld();
    const second = new FileStore({ path });
    const outcome = await Promise.race([code(second.create(session("new"))), sleep(4 * TIMEOUT, "it hangs")]);
    assert.deepEqual(outcome, ["ERR_STORE_TIMEOUT", undefined]);
    await holder.kill();
    await Promise.all([store.close(), second.close()]);
  });

  it("more than 65 536 waiting reads are refused", async () => {
    const { store, holder } = await openHeld({ commandTimeout: 60_000 });
    const calls = [code(store.create(session("new")))];
    for (let at = 0; at < 70_000; at++) calls.push(code(store.get("new")));
    const [refused] = await Promise.race(calls.slice(-1000));
    assert.equal(refused, "ERR_STORE_BUSY");
    await holder.kill();
    await Promise.all(calls);
    await store.close();
  });

  it("more than 64 MiB of writes are refused, and nothing has changed", async () => {
    const { store, holder } = await openHeld({ commandTimeout: 60_000 });
    const blob = "x".repeat(1 << 20).slice(100);
    const calls = Array.from({ length: 100 }, (_, at) => code(store.create(session(`many-${at}`, { blob }))));
    const refused = (await Promise.all(calls.slice(64))).filter(([code]) => code === "ERR_STORE_BUSY");
    assert.equal(refused.length, 100 - 64);
    await holder.kill();
    assert.ok((await Promise.all(calls.slice(0, 63))).every((outcome) => outcome === "done"));
    assert.equal(await store.get("many-99"), null);
    await store.close();
  });

  it("close waits for the writes of a full queue", async () => {
    const { store, holder } = await openHeld({ commandTimeout: 60_000 });
    const blob = "x".repeat(1 << 20).slice(100);
    const calls = Array.from({ length: 100 }, (_, at) => code(store.create(session(`many-${at}`, { blob }))));
    // These take the rest of the last MiB.
    const touches = Array.from({ length: 2000 }, () => code(store.touch("many-0", new Date(2e12))));
    assert.deepEqual(await touches.at(-1), ["ERR_STORE_BUSY", undefined]);
    const read = code(store.get("many-0"));
    const closed = code(store.close());
    await holder.kill();
    assert.deepEqual([await read, await closed], ["done", "done"]);
    assert.ok((await Promise.all(calls.slice(0, 63))).every((outcome) => outcome === "done"));
  });

  it("close ends by the deadline too, and the process exits", async () => {
    const { store, holder, path } = await openHeld();
    await holder.kill();
    await store.close();
    const held = await openHeld();
    held.store.create(session("new")).catch(() => {});
    assert.deepEqual(await code(held.store.close()), ["ERR_STORE_TIMEOUT", undefined]);
    await held.holder.kill();
    assert.ok(fs.existsSync(path));
  });
});
