"use strict";

// Processes that use a store with different limits: the later one is warned, and each applies its own.

const assert = require("node:assert/strict");
const { execFile } = require("node:child_process");
const diagnostics = require("node:diagnostics_channel");
const path = require("node:path");
const { after, afterEach, before, beforeEach, describe, it } = require("node:test");
const { setTimeout: sleep } = require("node:timers/promises");
const { promisify } = require("node:util");
const { FileStore, RedisStore } = require("..");
const { startProcess, startThread } = require("./support/file-peers.js");
const { makePlace, skip } = require("./support/file-places.js");
const { makeRedisPlace } = require("./support/redis-places.js");
const { redisMissing, until } = require("./support/redis-servers.js");

const CLI = path.join(__dirname, "../bin/native-store.js");
const run = promisify(execFile);
const place = makePlace();
const redis = makeRedisPlace();

const NONE = { maxSessionsPerUser: null, whenUserIsFull: null, maxLifetime: null };

describe("a process that opens a FileStore with other limits than one that has it open", { skip }, () => {
  let peer;
  before(async () => {
    peer = await startProcess();
  });
  after(() => peer.stop());

  let [events, warnings, options] = [];
  const hear = (event) => events.push(event);
  const hearWarning = (warning) => {
    // Such a short maxLifetime has its own warning.
    if (warning.code === "NATIVE_STORE_LIMITS_DIFFER") warnings.push(warning);
  };
  beforeEach(() => {
    [events, warnings, options] = [[], [], { path: place.next(), sweepInterval: 0 }];
    diagnostics.subscribe("native-store:limits:differ", hear);
    process.on("warning", hearWarning);
  });
  afterEach(() => {
    diagnostics.unsubscribe("native-store:limits:differ", hear);
    process.off("warning", hearWarning);
  });

  /** Opens and closes the store here. Returns the events that were published. */
  async function heardOf(limits) {
    const store = new FileStore({ ...options, ...limits });
    // Warnings are emitted in the next turn.
    await new Promise(setImmediate);
    await store.close();
    const heard = events.splice(0);
    assert.equal(warnings.splice(0).length, heard.length);
    return heard;
  }

  it("is warned, with both sets of limits", async () => {
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

  it("is warned about each limit, also a missing one", async () => {
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

  it("is not warned about equal limits, or after the others have closed the store", async () => {
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

  it("is not the command line, and no process is warned about that", async () => {
    const store = new FileStore({ ...options, maxSessionsPerUser: 5 });
    const { stderr } = await run(process.execPath, [CLI, "stats", "--path", options.path]);
    assert.equal(stderr, "");
    await store.close();
  });
});

describe("clean() of a FileStore with a maxLifetime", { skip }, () => {
  const LIFETIME = 100;
  const FAR = "2999-01-01T00:00:00.000Z";
  const session = (sessionId) => ({ sessionId, userId: "ann", expires: FAR });
  const removedBy = async (store) => {
    await store.clean();
    return (await store.stats()).lastSweep.removed;
  };
  let [options, limited, peer] = [];
  beforeEach(async () => {
    options = { path: place.next(), sweepInterval: 0 };
    limited = { ...options, maxLifetime: LIFETIME };
    peer = await startProcess();
  });
  afterEach(() => peer.stop());

  it("removes what a process without a limit has written, also while that process runs", async () => {
    const longer = await peer.open(options);
    const here = new FileStore(limited);
    for (const count of [1, 2, 3]) {
      for (let n = 0; n < count; n++) await longer.create(session(`${count}-${n}`));
      await sleep(LIFETIME + 50);
      assert.equal((await longer.getByUser("ann")).length, count);
      assert.equal(await removedBy(here), count);
      assert.equal((await longer.stats()).sessions, 0);
    }
    await here.close();
    await longer.close();
  });

  it("removes what a killed process without a limit has left in its log", async () => {
    const killed = await peer.open(options);
    for (const id of ["a", "b", "c"]) await killed.create(session(id));
    await peer.kill();
    peer = await startProcess();
    await sleep(LIFETIME + 50);
    const here = new FileStore(limited);
    assert.equal((await here.stats()).sessions, 3);
    assert.equal(await removedBy(here), 3);
    assert.equal(await removedBy(here), 0);
    await here.close();
    const later = await peer.open(options);
    assert.equal((await later.stats()).sessions, 0);
    await later.close();
  });
});

describe("a process that opens a RedisStore with other limits than one of the last minutes", {
  skip: redisMissing,
}, () => {
  const heard = [];
  const hear = (event) => heard.push(event);
  before(() => diagnostics.subscribe("native-store:limits:differ", hear));
  after(() => diagnostics.unsubscribe("native-store:limits:differ", hear));

  /** Resolves to the published limits of processes, once there are `count`. */
  async function untilSaid(prefix, count) {
    const said = () => redis.servers.call("ZCARD", `${prefix}limits`);
    await until(async () => (await said()) === count, `${count} have said theirs`);
  }

  it("is warned, once for all of its threads", async () => {
    const options = redis.next();
    const peer = await startProcess();
    const theirs = await peer.open({ ...options, maxSessionsPerUser: 3, maxLifetime: 5000 });
    await untilSaid(options.prefix, 1);
    const own = { ...options, maxSessionsPerUser: 3, whenUserIsFull: "reject", maxLifetime: 5000 };
    const store = new RedisStore(own);
    await until(() => heard.length > 0, "the event is there");
    const same = { maxSessionsPerUser: 3, maxLifetime: 5000 };
    const [{ message, ...event }] = heard;
    assert.deepEqual(event, {
      store: store.db,
      own: { ...same, whenUserIsFull: "reject" },
      other: { ...same, whenUserIsFull: "end-oldest" },
    });
    assert.match(
      message,
      /^another process has the RedisStore of the prefix "place \d+:" open with other limits: whenUserIsFull is "end-oldest" there, and "reject" here\./,
    );
    const said = () => redis.servers.call("ZSCORE", `${options.prefix}limits`, "7 5000");
    const before = await said();
    const twin = new RedisStore(own);
    await until(async () => (await said()) !== before, "the twin has said the same");
    const none = new RedisStore(options);
    await Promise.all([twin, none].map((each) => each.ping()));
    await untilSaid(options.prefix, 2);
    // A minute later each publishes its own limits again, without comparing them.
    assert.equal(heard.length, 1);
    const end = Number(await redis.servers.call("PTTL", `${options.prefix}limits`));
    assert.ok(end > 100_000 && end <= 151_000, `it ends in ${end} ms`);
    for (const each of [store, twin, none, theirs]) await each.close();
    await peer.stop();
  });

  it("is not warned about limits that were not published for minutes", async () => {
    heard.length = 0;
    const options = redis.next();
    const key = `${options.prefix}limits`;
    await redis.servers.call("ZADD", key, String(Date.now() - 160_000), "14 0");
    const store = new RedisStore({ ...options, maxSessionsPerUser: 2 });
    await untilSaid(options.prefix, 2);
    await store.ping();
    assert.deepEqual(heard, []);
    await store.close();
  });
});
