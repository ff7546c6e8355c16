"use strict";

// How a RedisStore finds the primary through sentinels. `redis-faults.test.js` tests their failovers.

const assert = require("node:assert/strict");
const { after, afterEach, before, describe, it } = require("node:test");
const { RedisStore } = require("..");
const { session } = require("./support/file-session.js");
const { bulk, list, startFakeServer } = require("./support/redis/fake-server.js");
const { redisMissing, startSentinels, startServer, until } = require("./support/redis-servers.js");

// Longer than the tests: no call times out.
const LONG = 30_000;

describe("a RedisStore behind sentinels", { skip: redisMissing }, () => {
  let all;
  let store;
  before(async () => {
    all = await startSentinels();
  });
  afterEach(() => store.close());
  after(() => all?.stop());

  const open = (urls = all.urls) => {
    store = new RedisStore({
      sentinel: { urls, master: all.master },
      commandTimeout: LONG,
      sweepInterval: 0,
    });
    return store;
  };

  /** Whether a sentinel has it as a subscribed client. The clients of the tests use RESP2. */
  const isHeard = async (sentinel) => {
    const clients = await sentinel.call("CLIENT", "LIST", "TYPE", "pubsub");
    return clients.split("\n").some((client) => client.includes(" sub=1 ") && !client.includes("resp=2"));
  };

  it("leaves a primary that is up once a sentinel reports the failover", async () => {
    await open().create(session("before"));
    const old = await all.primary();
    await until(() => isHeard(all.sentinels[0]), "it listens");
    // It acts as a primary forever: sentinels may not reconfigure it.
    await old.call("ACL", "SETUSER", "default", "-slaveof", "-replicaof");
    const { switched } = await all.nextPrimary();
    await all.sentinels[0].call("SENTINEL", "FAILOVER", all.master);
    const port = await switched;
    const heardAt = performance.now();
    const next = all.servers.find((server) => server.port === port);
    let made = 0;
    await until(async () => {
      await store.create(session(`after ${++made}`));
      return (await next.call("EXISTS", `fluid:sess#after ${made}`)) === 1;
    }, "it writes to the next one");
    const took = performance.now() - heardAt;
    // Silent sentinels are polled every 5 s.
    assert.ok(took < 5000, `it took ${took} ms`);
    assert.match((await old.call("ROLE"))[0], /^master$/);
    await old.call("ACL", "SETUSER", "default", "+slaveof", "+replicaof");
    await all.untilReplica(old);
  });

  it("leaves a silent primary as soon as there is another", async () => {
    await open().create(session("silent"));
    const old = await all.primary();
    const { switched } = await all.nextPrimary();
    await old.pause();
    const waiting = store.get("silent");
    await switched;
    const began = performance.now();
    await waiting;
    assert.ok(performance.now() - began < LONG / 2, "the call goes to the next one");
    old.resume();
    await all.untilReplica(old);
  });

  it("discovers the other sentinels, and no longer needs the given ones", async () => {
    await open([all.urls[2]]).create(session("one of three"));
    await until(async () => {
      const each = await Promise.all(all.sentinels.map(isHeard));
      return each.every(Boolean);
    }, "it listens to all of them");
    await all.sentinels[2].kill();
    const old = await all.primary();
    const { switched } = await all.nextPrimary();
    await old.pause();
    await switched;
    await store.create(session("two of three"));
    old.resume();
    await all.untilReplica(old);
    await all.sentinels[2].start();
  });
});

/** An old sentinel, which only reports the primary. */
async function startOldSentinel(primary) {
  const sentinel = { primary, questions: 0 };
  const { url, close } = await startFakeServer(([command, subcommand]) => {
    if (command === "PING") return "+PONG\r\n";
    if (command !== "SENTINEL" || subcommand !== "get-master-addr-by-name") return "-ERR unknown command\r\n";
    sentinel.questions++;
    return list([bulk("127.0.0.1"), bulk(sentinel.primary.port)]);
  });
  return Object.assign(sentinel, { url, close });
}

describe("a RedisStore behind a sentinel that refuses the subscription", { skip: redisMissing }, () => {
  it("polls it every few seconds", async () => {
    const [one, other] = await Promise.all([startServer(), startServer()]);
    const sentinel = await startOldSentinel(one);
    const store = new RedisStore({
      sentinel: { urls: [sentinel.url], master: "sessions" },
      commandTimeout: LONG,
      sweepInterval: 0,
    });
    await store.create(session("before"));
    sentinel.primary = other;
    await until(async () => (await store.get("before")) === null, "it goes to the other one");
    await store.create(session("after"));
    assert.equal(await other.call("EXISTS", "fluid:sess#after"), 1);
    assert.equal(await one.call("EXISTS", "fluid:sess#before"), 1);
    assert.ok(sentinel.questions < 10, `${sentinel.questions} questions`);
    await store.close();
    sentinel.close();
    await Promise.all([one.kill(), other.kill()]);
  });
});
