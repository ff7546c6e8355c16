"use strict";

// Processes that have one store open with other limits: the later one is warned.

const assert = require("node:assert/strict");
const { execFile } = require("node:child_process");
const diagnostics = require("node:diagnostics_channel");
const path = require("node:path");
const { after, afterEach, before, beforeEach, describe, it } = require("node:test");
const { promisify } = require("node:util");
const { FileStore } = require("..");
const { startProcess, startThread } = require("./support/file-peers.js");
const { makePlace, skip } = require("./support/file-places.js");

const CLI = path.join(__dirname, "../bin/native-store.js");
const run = promisify(execFile);
const place = makePlace();

const NONE = { maxSessionsPerUser: null, whenUserIsFull: null, maxLifetime: null };

describe("a process that opens a FileStore with other limits than one that has it open", { skip }, () => {
  let peer;
  before(async () => {
    peer = await startProcess();
  });
  after(() => peer.stop());

  let [events, warnings, options] = [];
  const hear = (event) => events.push(event);
  const hearWarning = (warning) => warnings.push(warning);
  beforeEach(() => {
    [events, warnings, options] = [[], [], { path: place.next(), sweepInterval: 0 }];
    diagnostics.subscribe("native-store:limits:differ", hear);
    process.on("warning", hearWarning);
  });
  afterEach(() => {
    diagnostics.unsubscribe("native-store:limits:differ", hear);
    process.off("warning", hearWarning);
  });

  /** Opens and closes the store here, and gives what was published meanwhile. */
  async function heardOf(limits) {
    const store = new FileStore({ ...options, ...limits });
    // Warnings are emitted in the next turn.
    await new Promise(setImmediate);
    await store.close();
    const heard = events.splice(0);
    assert.equal(warnings.splice(0).length, heard.length);
    return heard;
  }

  it("is warned, and told which they are", async () => {
    const store = await peer.open({ ...options, maxSessionsPerUser: 3, whenUserIsFull: "reject" });
    const here = new FileStore({ ...options, maxSessionsPerUser: 5 });
    await new Promise(setImmediate);
    const message =
      `another process has the FileStore in ${here.db.path} open with other limits: maxSessionsPerUser is 3 there, ` +
      'and 5 here; whenUserIsFull is "reject" there, and "end-oldest" here. Each process keeps to its own in what it ' +
      "writes: give all of them the same";
    assert.deepEqual(events, [
      {
        store: here.db,
        own: { ...NONE, maxSessionsPerUser: 5, whenUserIsFull: "end-oldest" },
        other: { ...NONE, maxSessionsPerUser: 3, whenUserIsFull: "reject" },
        message,
      },
    ]);
    assert.deepEqual(
      warnings.map(({ code, message }) => ({ code, message })),
      [{ code: "NATIVE_STORE_LIMITS_DIFFER", message }],
    );
    await here.close();
    await store.close();
  });

  it("is warned of each limit, of one that is missing too", async () => {
    for (const [theirs, own] of [
      [{ maxSessionsPerUser: 3 }, {}],
      [{}, { maxSessionsPerUser: 3 }],
      [{ maxSessionsPerUser: 3 }, { maxSessionsPerUser: 3, whenUserIsFull: "reject" }],
      [{ maxLifetime: 1000 }, { maxLifetime: 1001 }],
      [{ maxLifetime: 1000, maxSessionsPerUser: 1 }, { maxSessionsPerUser: 1 }],
    ]) {
      const store = await peer.open({ ...options, ...theirs });
      assert.equal((await heardOf(own)).length, 1, JSON.stringify([theirs, own]));
      await store.close();
    }
  });

  it("is not warned of the same limits, nor once the others have closed the store", async () => {
    for (const limits of [{}, { maxSessionsPerUser: 3, whenUserIsFull: "end-oldest", maxLifetime: 5000 }]) {
      const store = await peer.open({ ...options, ...limits });
      assert.deepEqual(await heardOf({ whenUserIsFull: undefined, ...limits }), []);
      await store.close();
      assert.deepEqual(await heardOf({ maxSessionsPerUser: 7 }), []);
    }
  });

  it("is warned once for all of its threads, and the earlier process is not", async () => {
    const store = await peer.open({ ...options, maxSessionsPerUser: 3 });
    const thread = await startThread();
    const first = new FileStore({ ...options, maxSessionsPerUser: 5 });
    const twin = new FileStore(options);
    const ofThread = await thread.open(options);
    await new Promise(setImmediate);
    assert.deepEqual([events.length, warnings.length], [1, 1]);
    for (const each of [ofThread, twin, first, store]) await each.close();
    await thread.stop();
    [events, warnings] = [[], []];
    const earlier = new FileStore({ ...options, maxSessionsPerUser: 5 });
    const later = await peer.open({ ...options, maxSessionsPerUser: 3 });
    assert.deepEqual([events, warnings], [[], []]);
    await later.close();
    await earlier.close();
  });

  it("is no process of the command line, and none is warned of that", async () => {
    const store = new FileStore({ ...options, maxSessionsPerUser: 5 });
    const { stderr } = await run(process.execPath, [CLI, "stats", "--path", options.path]);
    assert.equal(stderr, "");
    await store.close();
  });
});
