"use strict";

// The contract in a cluster, where a session and the index of its user are on different servers.

const assert = require("node:assert/strict");
const { describe, it } = require("node:test");
const { RedisStore, SessionStoreError } = require("..");
const { conformance, session } = require("./conformance.js");
const { makeRedisPlace } = require("./support/redis-places.js");
const { bulk, slotsReply, startFakeServer } = require("./support/redis/fake-server.js");
const { redisMissing, until } = require("./support/redis-servers.js");

const cluster = makeRedisPlace("cluster");

describe("in a cluster", { skip: redisMissing }, () => {
  conformance(
    "RedisStore",
    async (options, Store) => cluster.open(options, Store),
    { SessionStoreError },
    { isRemote: true, ownStats: ["sweepError"] },
  );

  it("sessions are on every server, and each is found by its user", async () => {
    const store = cluster.open();
    const { prefix } = store.db;
    const sessions = Array.from({ length: 300 }, (_, at) => session({ userId: `user ${at % 3}` }));
    await Promise.all(sessions.map((one) => store.create(one)));
    const { nodes } = cluster.servers;
    const keys = await Promise.all(nodes.slice(0, 3).map((node) => node.call("KEYS", `${prefix}sess#*`)));
    assert.equal(keys.flat().length, 300);
    for (const own of keys) assert.ok(own.length > 50, `${own.length} of 300`);
    for (const user of [0, 1, 2]) assert.equal((await store.getByUser(`user ${user}`)).length, 100);
    await store.close();
  });

  it("says so to a store that has the URL of a single node", async () => {
    const store = cluster.open();
    const { prefix } = store.db;
    const { url } = cluster.servers.nodes[0];
    const mistaken = new RedisStore({ url, prefix, sweepInterval: 0, commandTimeout: 30_000 });
    const sessions = Array.from({ length: 40 }, (_, at) => session({ userId: `user ${at}` }));
    const began = performance.now();
    const errors = await Promise.all(
      sessions.map((one) =>
        mistaken.create(one).then(
          () => null,
          (error) => error,
        ),
      ),
    );
    assert.ok(performance.now() - began < 15_000, "it does not wait for the deadline");
    const refused = sessions.filter((_, at) => errors[at] !== null);
    assert.ok(refused.length > 0);
    for (const error of errors.filter((one) => one !== null)) {
      assert.equal(error.code, "ERR_STORE_UNAVAILABLE");
      assert.match(error.message, /this server is a node of a cluster: use the option cluster/);
      assert.equal(error.outcome, undefined);
    }
    for (const { sessionId } of refused)
      assert.equal(await store.get(sessionId), null, "nothing has happened");
    await mistaken.close();
    await store.close();
  });

  it("needs only one node that is there of those that it is told", async () => {
    const { nodes } = cluster.servers;
    const away = "redis://127.0.0.1:1";
    const store = cluster.open({ cluster: [away, nodes[4].url] });
    const one = session();
    await store.create(one);
    assert.deepEqual(await store.getByUser("ann"), [one]);
    await store.close();
  });
});

describe("a cluster of which one node is behind", () => {
  it("is asked at the node that has a slot, and an older map of it is not believed", async () => {
    const MIDDLE = 8192;
    let [redirects, questions] = [0, 0];
    const answer = (epoch, owner) => (words) => {
      if (words[0] === "PING") return "+PONG\r\n";
      if (words[1] === "INFO") return bulk(`cluster_state:ok\r\ncluster_current_epoch:${epoch}\r\n`);
      if (words[1] !== "SLOTS") return "$-1\r\n";
      questions++;
      return slotsReply([
        [0, MIDDLE - 1, behind.port],
        [MIDDLE, 16_383, owner().port],
      ]);
    };
    // It was a primary, `next` has its slots, and it answers nobody.
    const lost = await startFakeServer(() => undefined);
    const answerBehind = answer(2, () => lost);
    const behind = await startFakeServer((words) => {
      if (words[0] !== "GET" || redirects === 0) return answerBehind(words);
      redirects--;
      return `-MOVED 1 127.0.0.1:${next.port}\r\n`;
    });
    const next = await startFakeServer(answer(3, () => next));
    const store = new RedisStore({ cluster: [next.url], sweepInterval: 0, commandTimeout: 30_000 });
    for (let round = 0; round < 15; round++) {
      const before = questions;
      redirects = 1;
      await Promise.all(Array.from({ length: 20 }, (_, at) => store.get(`session ${at}`)));
      assert.equal(redirects, 0);
      await until(() => questions > before, "the map is asked for");
    }
    assert.equal(lost.connections, 0);
    await store.close();
    for (const server of [lost, behind, next]) server.close();
  });
});
