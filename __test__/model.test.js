"use strict";

// Random calls on a store and on a plain Map, which must agree after each.

const assert = require("node:assert/strict");
const { it } = require("node:test");
const fc = require("fast-check");
const { FileStore, MemoryStore } = require("..");
const { makePlace } = require("./support/file-places.js");
const { makeRedisPlace } = require("./support/redis-places.js");
const { redisMissing } = require("./support/redis-servers.js");

const { next: newFolder } = makePlace();
const redis = makeRedisPlace();
const cluster = makeRedisPlace("cluster");

const RUNS = 400;
const HOUR = 3_600_000;

/** The contract as a model, with a Map of live sessions. */
class Model {
  live = new Map();

  create(session) {
    if (this.live.has(session.sessionId)) return "ERR_SESSION_EXISTS";
    return this.#put(session);
  }

  update(sessionId, session) {
    return this.live.has(sessionId) ? this.#put(session) : undefined;
  }

  touch(sessionId, expires) {
    const session = this.live.get(sessionId);
    if (session) this.#put({ ...session, expires });
    return session !== undefined;
  }

  deleteByUser(userId, except) {
    const ended = this.ofUser(userId).filter((session) => session.sessionId !== except);
    for (const session of ended) this.live.delete(session.sessionId);
    return ended.length;
  }

  ofUser(userId) {
    const key = userKey(userId);
    return [...this.live.values()].filter((session) => userKey(session.userId) === key);
  }

  #put(session) {
    const plain = JSON.parse(JSON.stringify(session));
    // A Map keeps the position of a key that is set again, like an update keeps a session's age.
    if (Date.parse(plain.expires) > Date.now()) this.live.set(session.sessionId, plain);
    else this.live.delete(session.sessionId);
  }
}

/**
 * Returns a key that is equal for equal JSON values, whatever the order of object keys. Returns `undefined` without a
 * user.
 */
function userKey(userId) {
  const sorted = (_, value) =>
    value !== null && typeof value === "object" && !Array.isArray(value)
      ? Object.fromEntries(Object.entries(value).sort(([one], [other]) => (one < other ? -1 : 1)))
      : value;
  const json = JSON.stringify(userId, sorted);
  return json === "null" ? undefined : json;
}

const ids = fc.oneof(
  fc.constantFrom("0a".repeat(18), "0b".repeat(18), "a", "A", "é"),
  fc.string({ unit: "grapheme", minLength: 1, maxLength: 3 }),
);
const users = fc.oneof(
  { weight: 4, arbitrary: fc.constantFrom("ann", "ben", 1, "1", null) },
  { weight: 1, arbitrary: fc.jsonValue({ maxDepth: 2 }) },
);
const expiries = fc
  .tuple(fc.boolean(), fc.integer({ min: 1, max: 1000 }))
  .map(([live, seconds]) => new Date(Date.now() + (live ? HOUR : -HOUR) + seconds * 1000).toISOString());
const extras = fc.oneof(
  { weight: 2, arbitrary: fc.constant({}) },
  { weight: 1, arbitrary: fc.dictionary(fc.string(), fc.jsonValue(), { maxKeys: 3 }) },
);
const sessions = fc
  .tuple(ids, users, expiries, extras)
  .map(([sessionId, userId, expires, extra]) => ({ ...extra, sessionId, userId, expires }));

const calls = fc.oneof(
  { weight: 5, arbitrary: fc.record({ call: fc.constant("create"), session: sessions }) },
  { weight: 3, arbitrary: fc.record({ call: fc.constant("update"), session: sessions }) },
  { weight: 2, arbitrary: fc.record({ call: fc.constant("touch"), id: ids, expires: expiries }) },
  { weight: 2, arbitrary: fc.record({ call: fc.constant("delete"), id: ids }) },
  {
    weight: 1,
    arbitrary: fc.record({ call: fc.constant("deleteByUser"), user: users, except: fc.option(ids) }),
  },
  { weight: 1, arbitrary: fc.record({ call: fc.constantFrom("clean", "clear") }) },
);

/** Makes a call on both synchronously, and compares the results. */
async function apply(step, store, model) {
  switch (step.call) {
    case "create": {
      const refusal = store.create(step.session).then(
        () => undefined,
        (error) => error.code,
      );
      const expected = model.create(step.session);
      return assert.equal(await refusal, expected);
    }
    case "update":
      model.update(step.session.sessionId, step.session);
      return store.update(step.session.sessionId, step.session);
    case "touch": {
      const expected = model.touch(step.id, step.expires);
      return assert.equal(await store.touch(step.id, step.expires), expected);
    }
    case "delete":
      model.live.delete(step.id);
      return store.delete(step.id);
    case "deleteByUser": {
      if (userKey(step.user) === undefined) return;
      const ended = await store.deleteByUser(step.user, { except: step.except ?? undefined });
      return assert.equal(ended, model.deleteByUser(step.user, step.except));
    }
    case "clear":
      await store.clear();
      return model.live.clear();
    default:
      return store.clean();
  }
}

async function compare(store, model, seen) {
  for (const session of seen) {
    assert.deepEqual(await store.get(session.sessionId), model.live.get(session.sessionId) ?? null);
    if (userKey(session.userId) !== undefined) {
      const found = await store.getByUser(session.userId);
      assert.deepEqual(
        found.sort((one, other) => (one.sessionId < other.sessionId ? -1 : 1)),
        model.ofUser(session.userId).sort((one, other) => (one.sessionId < other.sessionId ? -1 : 1)),
      );
    }
  }
  assert.equal(await store.size(), model.live.size);
}

const secret = "a secret of some length";

/** Fewer cases: each needs a file or a server. */
const STORES = {
  MemoryStore: { open: () => new MemoryStore({ sweepInterval: 0 }), runs: RUNS },
  FileStore: { open: () => new FileStore({ path: newFolder(), sweepInterval: 0 }), runs: RUNS / 4 },
  "FileStore with a secret": {
    open: () => new FileStore({ path: newFolder(), sweepInterval: 0, secret }),
    runs: RUNS / 4,
  },
  RedisStore: { open: () => redis.open(), runs: RUNS / 4, skip: redisMissing },
  "RedisStore with a secret": { open: () => redis.open({ secret }), runs: RUNS / 4, skip: redisMissing },
  "RedisStore of a cluster": { open: () => cluster.open(), runs: RUNS / 4, skip: redisMissing },
};

async function check(property, numRuns) {
  await fc.assert(property, { numRuns });
  console.log(`property cases: ${numRuns}`);
}

for (const [name, { open, runs, skip = false }] of Object.entries(STORES)) {
  it(`a ${name} behaves like its model`, { skip }, async () => {
    const property = fc.asyncProperty(fc.array(calls, { maxLength: 40 }), async (steps) => {
      const store = open();
      const model = new Model();
      const seen = [];
      for (const step of steps) {
        await apply(step, store, model);
        if (step.session) seen.push(step.session);
        await compare(store, model, seen.slice(-5));
      }
      await compare(store, model, seen);
      await store.close();
    });
    await check(property, runs);
  });

  it(`a ${name} runs concurrent calls in the order in which they were made`, { skip }, async () => {
    // Calls on other threads are not part of that order.
    const inOrder = calls.filter(({ call }) => ["create", "update", "touch", "delete"].includes(call));
    const property = fc.asyncProperty(fc.array(inOrder, { maxLength: 60 }), async (steps) => {
      const store = open();
      const model = new Model();
      await Promise.all(steps.map((step) => apply(step, store, model)));
      await compare(
        store,
        model,
        steps.flatMap((step) => step.session ?? []),
      );
      await store.close();
    });
    await check(property, runs);
  });

  it(`a ${name} returns any JSON session unchanged`, { skip }, async () => {
    const store = open();
    let made = 0;
    const property = fc.asyncProperty(
      fc.dictionary(fc.string(), fc.anything({ withDate: true, withNullPrototype: true })),
      async (extra) => {
        const sessionId = `${++made}`;
        const session = { ...extra, sessionId, userId: extra.userId, expires: Date.now() + HOUR };
        await store.create(session);
        assert.deepEqual(await store.get(sessionId), JSON.parse(JSON.stringify(session)));
      },
    );
    await check(property, RUNS);
    await store.close();
  });
}
