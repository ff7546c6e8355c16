"use strict";

// The contract in a cluster, where a session and its user index are on different servers.

const assert = require("node:assert/strict");
const { describe, it } = require("node:test");
const { RedisStore, SessionStoreError } = require("..");
const { conformance, session } = require("./conformance.js");
const { makeRedisPlace } = require("./support/redis-places.js");
const { bulk, slotsReply, startFakeServer } = require("./support/redis/fake-server.js");
const { redisMissing, until } = require("./support/redis-servers.js");

const cluster = makeRedisPlace("cluster");

describe("in a cluster", { skip: redisMissing }, () => {
  const counters = ["sweepError", "connections"];
  for (const [name, given, ownStats] of [
    ["RedisStore", {}, counters],
    ["RedisStore with a cache", { cache: {} }, [...counters, "cache"]],
  ]) {
    const createStore = async (options, Store) => cluster.open({ ...given, ...options }, Store);
    conformance(name, createStore, { SessionStoreError }, { isRemote: true, isApart: true, ownStats });
  }

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

  /** Returns a field of a store's connections to each primary, by age. */
  async function fields(clientName, field) {
    const lists = await Promise.all(primaries().map((node) => node.call("CLIENT", "LIST")));
    const own = (list) => list.split("\n").filter((line) => line.includes(` name=${clientName} `));
    return lists.map((list) => own(list).map((line) => new RegExp(`\\b${field}=(\\S+)`).exec(line)[1]));
  }

  const lastCommands = (clientName) => fields(clientName, "cmd");

  const primaries = () => cluster.servers.nodes.slice(0, 3);

  /** Opens a store whose fast path has all its connections. */
  async function withFastPath(clientName, options) {
    const store = cluster.open({ clientName, commandTimeout: 10_000, ...options });
    const areThere = async () => (await lastCommands(clientName)).every((list) => list.length === 2);
    await until(areThere, "it has two connections to each primary");
    // The worker reports in order: first the connections, then this call.
    await store.size();
    return store;
  }

  it("the event loop has a connection to each primary, and calls use it", async () => {
    for (const secret of [undefined, Buffer.alloc(32, 7)]) {
      const clientName = secret ? "encrypted" : "open";
      const store = await withFastPath(clientName, { ...(secret && { secret }) });
      const sessions = Array.from({ length: 60 }, () => session());
      await Promise.all(sessions.map((one) => store.create(one)));
      const found = await Promise.all(sessions.map(({ sessionId }) => store.get(sessionId)));
      assert.deepEqual(found, sessions);
      for (const [, command] of await lastCommands(clientName)) assert.equal(command, "get");
      await store.close();
      await until(async () => (await lastCommands(clientName)).flat().length === 0, "all are gone");
    }
  });

  it("calls see those before them while their slot moves", async () => {
    const store = await withFastPath("moving");
    const { prefix } = store.db;
    const slot = await cluster.servers.slotOf(`${prefix}sess#{moving}`);
    const from = await cluster.servers.ownerOf(slot);
    const ids = Array.from({ length: 20 }, (_, at) => `{moving}${at}`);
    await Promise.all(ids.map((sessionId) => store.create(session({ sessionId, count: 0 }))));
    let isOver = false;
    let rounds = 0;
    const loops = ids.map(async (sessionId) => {
      for (let count = 1; !isOver; count += 2, rounds++) {
        const of = (count) => session({ sessionId, count });
        // No call waits for the previous one.
        const calls = [store.update(sessionId, of(count)), store.update(sessionId, of(count + 1))];
        const found = store.get(sessionId);
        await Promise.all([...calls, store.touch(sessionId, of(0).expires)]);
        assert.equal((await found).count, count + 1);
        assert.equal((await store.get(sessionId)).count, count + 1);
      }
    });
    loops.push(
      (async () => {
        for (const to of [(from + 1) % 3, (from + 2) % 3, from]) {
          const move = await cluster.servers.slotMove(slot, to);
          await move.begin();
          for (let left = ids.length; left > 0; left -= 5) await move.moveKeys(5);
          await move.moveKeys();
          await move.end();
          const before = rounds;
          await until(() => rounds > before + 100, "calls go on");
        }
        isOver = true;
      })(),
    );
    await Promise.all(loops).finally(() => {
      isOver = true;
    });
    await store.close();
  });

  it("a primary's connections are restored when they are killed, while calls continue", async () => {
    const store = await withFastPath("killed");
    const sessions = Array.from({ length: 30 }, () => session());
    await Promise.all(sessions.map((one) => store.create(one)));
    for (const node of primaries()) {
      await node.call("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes");
      const found = await Promise.all(sessions.map(({ sessionId }) => store.get(sessionId)));
      assert.deepEqual(found, sessions);
      const areThere = async () => (await lastCommands("killed")).every((list) => list.length === 2);
      await until(areThere, "there are new ones");
    }
    await store.close();
  });

  it("all event-loop connections end with the worker connection to the node with the wrapped keys", async () => {
    const store = await withFastPath("keys", { secret: Buffer.alloc(32, 7) });
    const one = session();
    await store.create(one);
    const before = await fields("keys", "id");
    const keeper = await cluster.servers.ownerOf(await cluster.servers.slotOf(`${store.db.prefix}seal`));
    // The first connection is the worker's.
    await primaries()[keeper].call("CLIENT", "KILL", "ID", before[keeper][0]);
    assert.deepEqual(await store.get(one.sessionId), one);
    await until(async () => {
      const now = await fields("keys", "id");
      return now.every((list, at) => list.length === 2 && list[1] !== before[at][1]);
    }, "they are all new");
    assert.deepEqual(await store.get(one.sessionId), one);
    await store.close();
  });

  it("is reported to a store that has the URL of a single node", async () => {
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

  it("needs only one reachable node in the option cluster", async () => {
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
  it("is asked at the node that owns a slot, and an older slot map is ignored", async () => {
    const MIDDLE = 8192;
    let [redirects, questions] = [0, 0];
    // The first id of a round is on another node, for the event loop and for the worker.
    let movedKey;
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
    // It was a primary, `next` has its slots, and it does not answer.
    const lost = await startFakeServer(() => undefined);
    const answerBehind = answer(2, () => lost);
    const behind = await startFakeServer((words) => {
      if (words[0] !== "GET") return answerBehind(words);
      movedKey ??= words[1];
      if (words[1] !== movedKey) return answerBehind(words);
      redirects++;
      return `-MOVED 1 127.0.0.1:${next.port}\r\n`;
    });
    const next = await startFakeServer(answer(3, () => next));
    const store = new RedisStore({ cluster: [next.url], sweepInterval: 0, commandTimeout: 30_000 });
    for (let round = 0; round < 15; round++) {
      const before = questions;
      [redirects, movedKey] = [0, undefined];
      await Promise.all(Array.from({ length: 20 }, (_, at) => store.get(`session ${at}`)));
      assert.ok(redirects > 0);
      await until(() => questions > before, "the map is asked for");
    }
    assert.equal(lost.connections, 0);
    await store.close();
    for (const server of [lost, behind, next]) server.close();
  });
});
