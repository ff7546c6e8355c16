"use strict";

// The data on the server: readable by others, separate from their data, and sometimes changed by them.

const assert = require("node:assert/strict");
const { after, afterEach, before, beforeEach, describe, it } = require("node:test");
const { RedisStore } = require("..");
const { redisMissing, startServer, until } = require("./support/redis-servers.js");
const { session, at, HOUR } = require("./conformance.js");

const open = (options) => new RedisStore({ sweepInterval: 0, commandTimeout: 30_000, ...options });

async function sessionsOf(store) {
  const sessions = [];
  for await (const entry of store.sessions()) sessions.push(entry.session);
  return sessions;
}

describe("the data of a RedisStore", { skip: redisMissing }, () => {
  let server;
  let store;
  before(async () => {
    server = await startServer();
  });
  after(() => server?.kill());
  beforeEach(async () => {
    await server.call("FLUSHALL");
    store = open({ url: server.url });
  });
  afterEach(() => store.close());

  const keyOf = (id, prefix = "fluid:") => `${prefix}sess#${id}`;

  it("is JSON that any client can read", async () => {
    for (const given of [session(), session({ cart: [{ id: 1 }], name: "é" }), session({ userId: 7 })]) {
      await store.create(given);
      const kept = JSON.parse(await server.call("GET", keyOf(given.sessionId)));
      assert.equal(kept.expires, Date.parse(given.expires));
      assert.deepEqual(kept.user, given.userId);
      assert.deepEqual(kept.session, given);
    }
  });

  it("is expired by the server, to the millisecond", async () => {
    const given = session();
    const endsAt = async (expires) => {
      const before = Date.now();
      const left = await server.call("PTTL", keyOf(given.sessionId));
      const [earliest, end, latest] = [before + left, Date.parse(expires), Date.now() + left];
      assert.ok(earliest <= end && end <= latest, `${end} is not from ${earliest} to ${latest}`);
    };
    await store.create(given);
    await endsAt(given.expires);
    const [touched, updated] = [at(2 * HOUR), at(3 * HOUR)];
    await store.touch(given.sessionId, touched);
    await endsAt(touched);
    await store.update(given.sessionId, { ...given, expires: updated });
    await endsAt(updated);
  });

  it("is separate from the keys of others, whatever the prefix", async () => {
    const prefixes = ["fluid:", "fluid", "a*", "a?b[c]^\\:", "ab", "é:", "{tag}:"];
    const stores = prefixes.map((prefix) => open({ url: server.url, prefix }));
    await server.call("SET", "other", "1");
    await server.call("SET", "abc:sess#x", "2");
    for (const [number, one] of stores.entries()) {
      for (let count = 0; count <= number; count++) await one.create(session());
    }
    for (const [number, one] of stores.entries())
      assert.equal(await one.size(), number + 1, prefixes[number]);
    for (const [number, one] of stores.entries()) {
      await one.clear();
      assert.equal(await one.size(), 0);
      for (let later = number + 1; later < stores.length; later++) {
        assert.equal(await stores[later].size(), later + 1, `${prefixes[number]} cleared ${prefixes[later]}`);
      }
    }
    assert.equal(await server.call("GET", "other"), "1");
    assert.deepEqual(await server.call("KEYS", "*sess#*"), ["abc:sess#x"]);
    await Promise.all(stores.map((one) => one.close()));
  });

  it("is encrypted with a secret, and only readable with that", async () => {
    const sealed = open({ url: server.url, prefix: "sealed:", secret: "a secret of some length" });
    const given = session({ userId: "ann@example.com", card: "4111 1111" });
    await sealed.create(given);
    assert.deepEqual(await sealed.get(given.sessionId), given);
    assert.equal((await sealed.getByUser("ann@example.com")).length, 1);
    for (const key of await server.call("KEYS", "sealed:*")) {
      const type = await server.call("TYPE", key);
      const value = await (type === "string" ? server.call("GET", key) : server.call("ZRANGE", key, 0, -1));
      const text = `${key} ${value}`;
      for (const word of ["ann@example", "4111 1111", given.sessionId])
        assert.ok(!text.includes(word), `${word}: ${text}`);
    }
    const stranger = open({ url: server.url, prefix: "sealed:", secret: "another secret of some length" });
    await assert.rejects(stranger.get(given.sessionId), { code: "ERR_INVALID_OPTION" });
    await assert.rejects(stranger.create(session()), { code: "ERR_INVALID_OPTION" });
    const both = open({
      url: server.url,
      prefix: "sealed:",
      secret: ["another secret of some length", "a secret of some length"],
    });
    assert.deepEqual(await both.get(given.sessionId), given);
    assert.equal(await both.deleteByUser("ann@example.com"), 1);
    await Promise.all([sealed, stranger, both].map((one) => one.close()));
  });

  it("cannot be plaintext if others encrypt", async () => {
    const refused = {
      code: "ERR_INVALID_OPTION",
      message: "secret must be one that encrypts the sessions of this prefix; got no secret",
    };
    const plain = session();
    await store.create(plain);
    const sealed = open({ url: server.url, secret: "a secret of some length" });
    const given = session();
    await sealed.create(given);
    // No store finds the earlier sessions.
    assert.equal(await sealed.get(plain.sessionId), null);
    assert.deepEqual(await sealed.getByUser(plain.userId), [given]);
    assert.deepEqual(await sessionsOf(sealed), [given]);
    assert.equal(await sealed.size(), 2);
    const late = open({ url: server.url });
    const isRefused = (one) =>
      one.size().then(
        () => false,
        () => true,
      );
    for (const one of [late, store]) {
      await until(() => isRefused(one), "it has seen that they are encrypted");
      const calls = [
        () => one.create(session()),
        () => one.get(given.sessionId),
        () => one.update(plain.sessionId, plain),
        () => one.touch(plain.sessionId, plain.expires),
        () => one.delete(plain.sessionId),
        () => one.getByUser(plain.userId),
        () => one.deleteByUser(plain.userId),
        () => one.ids().next(),
        () => one.sessions().next(),
        () => one.sessions({ userId: plain.userId }).next(),
        () => one.size(),
        () => one.clean(),
        () => one.clear(),
        () => one.ping(),
        () => one.ready(),
      ];
      for (const call of calls) await assert.rejects(call, refused);
    }
    assert.equal((await server.call("KEYS", "fluid:sess#*")).length, 2);
    await sealed.clear();
    assert.equal(await sealed.size(), 0);
    // The secret was a mistake.
    await sealed.close();
    await server.call("DEL", "fluid:seal");
    for (const one of [late, store]) {
      await until(async () => !(await isRefused(one)), "it has seen that they are not");
    }
    await store.create(plain);
    assert.deepEqual(await late.get(plain.sessionId), plain);
    await late.close();
  });

  it("may be a foreign value, which is absent and stays", async () => {
    const values = ["", "garbage", "{}", "null", '{"expires":1}', "\u0000", '{"expires":"x","session":{}}'];
    for (const [number, value] of values.entries()) await server.call("SET", keyOf(`bad ${number}`), value);
    const fine = session();
    await store.create(fine);
    await server.call("RPUSH", keyOf("a list"), "1");
    const ids = [...[...values.keys()].map((number) => `bad ${number}`), "a list"];
    for (const id of ids) {
      assert.equal(await store.get(id), null, id);
      assert.equal(await store.touch(id, at(HOUR)), false, id);
      await store.update(id, session({ sessionId: id }));
      await assert.rejects(store.create(session({ sessionId: id })), (error) => {
        assert.equal(error.code, "ERR_STORE_CORRUPT", `${id}: ${error.message}`);
        assert.match(error.message, /a value that this store has not written/);
        assert.ok(!error.message.includes("garbage"));
        return true;
      });
    }
    assert.deepEqual(await store.getByUser("ann"), [fine]);
    assert.deepEqual(await sessionsOf(store), [fine]);
    await store.clear();
    assert.deepEqual((await server.call("KEYS", "fluid:sess#*")).sort(), ids.map((id) => keyOf(id)).sort());
    // delete removes a string, but not another type.
    for (const id of ids) await store.delete(id);
    assert.deepEqual(await server.call("KEYS", "fluid:sess#*"), [keyOf("a list")]);
  });

  it("is refused if others have changed its text, without showing it", async () => {
    const [broken, number] = [session(), session()];
    for (const [given, text] of [
      [broken, '{"card":4111'],
      [number, "5"],
    ]) {
      await store.create(given);
      const stored = await server.call("GET", keyOf(given.sessionId));
      await server.call("SET", keyOf(given.sessionId), stored.replace(/"session":.*/, `"session":${text}}`));
      for (const call of [store.get(given.sessionId), store.getByUser(given.userId)]) {
        await assert.rejects(call, (error) => {
          assert.equal(error.code, "ERR_STORE_CORRUPT", error.message);
          assert.ok(!/4111|card/.test(`${error.message}${error.cause}`), error.message);
          return true;
        });
      }
      await store.delete(given.sessionId);
    }
  });

  it("does not hide other sessions from sessions() if others have changed a text", async () => {
    const given = Array.from({ length: 20 }, () => session());
    for (const one of given) await store.create(one);
    for (const { sessionId } of given.slice(0, 3)) {
      const stored = await server.call("GET", keyOf(sessionId));
      await server.call("SET", keyOf(sessionId), stored.replace(/"session":.*/, '"session":{"card":4111}'));
    }
    for (const options of [undefined, { userId: given[0].userId }]) {
      const seen = [];
      const loop = async () => {
        for await (const entry of store.sessions(options)) seen.push(entry.session.sessionId);
      };
      await assert.rejects(loop(), {
        code: "ERR_STORE_CORRUPT",
        message: "3 sessions cannot be read. All others were given",
        unreadable: 3,
      });
      assert.deepEqual(
        seen.sort(),
        given
          .slice(3)
          .map(({ sessionId }) => sessionId)
          .sort(),
      );
    }
    assert.equal((await store.stats()).calls.sessions.errors.ERR_STORE_CORRUPT, 2);
  });

  it("is separate from that of connect-redis, even if one prefix starts with the other", async () => {
    const left = JSON.stringify({ cookie: { originalMaxAge: null }, passport: { user: 1 } });
    const before = ["fluid:a", "fluid:sess:a", "fluid:sess#a"];
    for (const key of before) await server.call("SET", key, left);
    assert.equal(await store.get("a"), null);
    assert.equal(await store.size(), 0);
    await store.clear();
    for (const key of before) assert.equal(await server.call("GET", key), left);
  });

  it("is separate from that of other prefixes, even if one starts with the other", async () => {
    const prefixes = [
      "s",
      "shop:",
      "shop:sess",
      "shop:sess:",
      "shop:user:",
      "shop:seal",
      "shop:sweep",
      "shop:sess:sess:",
    ];
    const secret = "a secret of some length";
    const stores = prefixes.flatMap((prefix, at) =>
      open({ url: server.url, prefix, ...(at % 2 && { secret }) }),
    );
    const made = stores.map((_, at) => session({ sessionId: "same", n: at }));
    for (const [at, one] of stores.entries()) await one.create(made[at]);
    for (const [at, one] of stores.entries()) {
      assert.deepEqual(await one.get("same"), made[at]);
      assert.equal(await one.get("sess#same"), null);
      assert.equal(await one.get("sess:same"), null);
      assert.deepEqual([await one.size(), (await one.getByUser("ann")).length], [1, 1], prefixes[at]);
    }
    for (const [at, one] of stores.entries()) {
      await one.clear();
      for (const [other, store] of stores.entries())
        assert.equal(await store.size(), other > at ? 1 : 0, `${prefixes[at]} cleared ${prefixes[other]}`);
    }
    assert.throws(
      () => open({ url: server.url, prefix: "a#b" }),
      (error) => {
        assert.equal(error.code, "ERR_INVALID_OPTION");
        assert.match(error.message, /prefix.+without '#'/);
        return true;
      },
    );
    await Promise.all(stores.map((one) => one.close()));
  });

  it("may be a foreign value that the user index names: other sessions of the user are found and end", async () => {
    const index = 'fluid:user#"ann"';
    const values = {
      text: (key) => server.call("SET", key, "garbage"),
      json: (key) => server.call("SET", key, "{}"),
      list: (key) => server.call("RPUSH", key, "1"),
    };
    const kinds = Object.keys(values);
    const spoil = () => Promise.all(kinds.map((kind) => values[kind](keyOf(kind))));
    const areLeft = async () => {
      const left = await Promise.all(kinds.map((kind) => server.call("EXISTS", keyOf(kind))));
      assert.deepEqual(left, [1, 1, 1]);
    };
    // Some are as new as a pending creation, and some old enough to be swept.
    for (const score of [Date.now() * 1000, 1]) {
      await spoil();
      const fine = [session(), session()];
      for (const one of fine) await store.create(one);
      for (const kind of kinds) await server.call("ZADD", index, score, kind);
      assert.deepEqual(await store.getByUser("ann"), fine);
      const limited = open({ url: server.url, maxSessionsPerUser: 2 });
      const third = session();
      await limited.create(third);
      await limited.close();
      assert.deepEqual(await store.getByUser("ann"), [fine[1], third]);
      for (const kind of kinds) await server.call("ZADD", index, score, kind);
      assert.equal(await store.deleteByUser("ann"), 2);
      assert.deepEqual(await store.getByUser("ann"), []);
      assert.equal(await server.call("ZCARD", index), score === 1 ? 0 : kinds.length);
      await areLeft();
      await server.call("FLUSHALL");
    }
  });

  it("may have a foreign value under the key of a user index, which sweep and clear skip", async () => {
    const [one, gone] = [session({ userId: "ben" }), session({ userId: "ben" })];
    await store.create(one);
    await server.call("RPUSH", 'fluid:user#"ann"', "1");
    await server.call("ZADD", 'fluid:user#"ben"', 1, gone.sessionId);
    await store.clean();
    assert.equal(await server.call("ZCARD", 'fluid:user#"ben"'), 1);
    await store.clear();
    assert.equal(await store.size(), 0);
    assert.equal(await server.call("LLEN", 'fluid:user#"ann"'), 1);
  });

  it("works after the server has dropped its scripts", async () => {
    const given = session();
    await store.create(given);
    for (let round = 0; round < 3; round++) {
      await server.call("SCRIPT", "FLUSH", "SYNC");
      assert.equal(await store.touch(given.sessionId, at(HOUR + round)), true);
      await server.call("SCRIPT", "FLUSH", "SYNC");
      await store.update(given.sessionId, { ...given, userId: `user ${round}` });
      await server.call("SCRIPT", "FLUSH", "SYNC");
      assert.equal((await store.getByUser(`user ${round}`)).length, 1);
    }
    await server.call("SCRIPT", "FLUSH", "SYNC");
    assert.equal(await store.deleteByUser("user 2"), 1);
  });

  it("survives that others flush the database, or evict keys", async () => {
    const [one, other] = [session(), session()];
    await store.create(one);
    await store.create(other);
    await server.call("DEL", keyOf(one.sessionId));
    assert.equal(await store.get(one.sessionId), null);
    assert.deepEqual(await store.getByUser("ann"), [other]);
    assert.equal(await store.deleteByUser("ann"), 1);
    await server.call("FLUSHALL");
    assert.equal(await store.size(), 0);
    await store.create(one);
    assert.deepEqual(await store.getByUser("ann"), [one]);
  });

  it("is refused if the server is full, but calls that end sessions work", async () => {
    const kept = session({ userId: "kept" });
    await store.create(kept);
    await server.call("CONFIG", "SET", "maxmemory", 1);
    try {
      const isFull = (error) => {
        assert.equal(error.code, "ERR_STORE_FULL", error.message);
        assert.notEqual(error.outcome, "unknown");
        return true;
      };
      await assert.rejects(store.create(session()), isFull);
      await assert.rejects(store.update(kept.sessionId, { ...kept, more: "x".repeat(1000) }), isFull);
      assert.deepEqual(await store.get(kept.sessionId), kept);
      // Sessions in use live on, even if the user index must be kept longer for them.
      for (const expires of [at(2 * HOUR), at(50 * HOUR), at(400 * HOUR)]) {
        assert.equal(await store.touch(kept.sessionId, expires), true);
        assert.equal((await store.get(kept.sessionId)).expires, expires);
      }
      assert.equal((await store.getByUser("kept")).length, 1);
      await store.delete(kept.sessionId);
      assert.equal(await store.get(kept.sessionId), null);
    } finally {
      await server.call("CONFIG", "SET", "maxmemory", 0);
    }
    await store.create(session());
  });

  it("can be read if a server limits the output of a connection, which is not closed repeatedly", async () => {
    const own = await startServer({ settings: { "client-output-buffer-limit": "normal 2mb 0 0" } });
    const store = open({ url: own.url });
    const data = "x".repeat(400_000);
    const all = Array.from({ length: 40 }, (_, at) =>
      session({ sessionId: `large ${at}`, userId: "lea", data }),
    );
    for (const one of all) await store.create(one);
    const readAll = async () => {
      assert.deepEqual(await Promise.all(all.map((one) => store.get(one.sessionId))), all);
      assert.equal((await store.getByUser("lea")).length, all.length);
    };
    const connections = async () => Number((await own.info("stats")).total_connections_received);
    await readAll();
    // The event-loop connection is restored.
    await until(
      async () => Number((await own.info("clients")).connected_clients) === 3,
      "it has both connections",
    );
    const before = await connections();
    await readAll();
    await readAll();
    // That of the question.
    assert.equal(await connections(), before + 1);
    await store.close();
    await own.kill();
  });

  it("can be read while writes wait for missing replicas", async () => {
    const sessions = Array.from({ length: 8 }, () => session());
    await Promise.all(sessions.map((one) => store.create(one)));
    const waiting = open({ url: server.url, waitReplicas: 1, commandTimeout: 4000 });
    let ended = 0;
    const write = async (one) => {
      const error = await waiting.update(one.sessionId, one).catch((thrown) => thrown);
      ended++;
      assert.match(error.code, /^ERR_STORE_(TIMEOUT|UNAVAILABLE)$/);
      assert.equal(error.outcome, "unknown");
    };
    // A read of a session waits for its pending writes.
    const [written, others] = [sessions.slice(0, 4), sessions.slice(4)];
    const writers = written.map(write);
    for (let count = 0; count < 20; count++) {
      const one = others[count % others.length];
      assert.deepEqual(await waiting.get(one.sessionId), one);
    }
    assert.equal(ended, 0, "reads wait for writes");
    await Promise.all(writers);
    await waiting.close();
  });

  it("may be on a replica, which refuses writes", async () => {
    const given = session();
    await store.create(given);
    const replica = await startServer({ settings: { replicaof: `127.0.0.1 ${server.port}` } });
    const refusals = Array.from({ length: 10 }, async (_, at) => {
      const reader = open({ url: replica.url, commandTimeout: 2000 + 70 * at });
      const error = await reader.create(session()).catch((thrown) => thrown);
      assert.match(error.code, /^ERR_STORE_(UNAVAILABLE|TIMEOUT)$/);
      await reader.close();
      return error.outcome;
    });
    // Refused writes have not happened. Some may have been retried just before their deadline.
    const unknown = (await Promise.all(refusals)).filter((outcome) => outcome !== undefined);
    assert.ok(unknown.length <= 5, `${unknown.length} of 10 may have been carried out`);
    await replica.kill();
  });

  it("can be read from a replica while writes are refused there, on the existing connections", async () => {
    const [given, other] = [session(), session()];
    await Promise.all([store.create(given), store.create(other)]);
    const replica = await startServer({ settings: { replicaof: `127.0.0.1 ${server.port}` } });
    const reader = open({ url: replica.url, commandTimeout: 2000 });
    await until(
      async () => (await reader.get(given.sessionId)) && reader.get(other.sessionId),
      "the replica has both",
    );
    const connections = async () => Number((await replica.info("stats")).total_connections_received);
    const before = await connections();
    let isOver = false;
    const refused = Promise.all(
      Array.from({ length: 5 }, () =>
        assert.rejects(reader.touch(other.sessionId, Date.now() + 2 * HOUR), { name: "SessionStoreError" }),
      ),
    ).finally(() => {
      isOver = true;
    });
    while (!isOver) assert.deepEqual(await reader.get(given.sessionId), given);
    await refused;
    const made = (await connections()) - before;
    assert.ok(made <= 12, `${made} connections`);
    await reader.close();
    await replica.kill();
  });

  it("can be written by a script, too, once the replica has become the primary", async () => {
    const given = session();
    await store.create(given);
    const replica = await startServer({ settings: { replicaof: `127.0.0.1 ${server.port}` } });
    const writer = open({ url: replica.url });
    await until(() => writer.get(given.sessionId).then(Boolean), "the replica has it");
    const touched = writer.touch(given.sessionId, at(2 * HOUR));
    // Until then it was refused several times.
    await new Promise((resolve) => setTimeout(resolve, 200));
    await replica.call("REPLICAOF", "NO", "ONE");
    assert.equal(await touched, true);
    await writer.close();
    await replica.kill();
  });

  it("contains each concurrent write of several stores completely", async () => {
    const stores = Array.from({ length: 4 }, () => open({ url: server.url }));
    for (let round = 0; round < 50; round++) {
      const given = session();
      const outcomes = await Promise.allSettled(stores.map((one) => one.create(given)));
      assert.equal(outcomes.filter(({ status }) => status === "fulfilled").length, 1);
      await Promise.all([
        ...stores.map((one, number) => one.update(given.sessionId, { ...given, userId: `user ${number}` })),
        stores[round % 4].delete(given.sessionId),
      ]);
      assert.equal(await store.get(given.sessionId), null, "a logged-out session came back");
      for (const number of stores.keys()) assert.deepEqual(await store.getByUser(`user ${number}`), []);
    }
    await Promise.all(stores.map((one) => one.close()));
  });
});
