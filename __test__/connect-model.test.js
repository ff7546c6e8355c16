"use strict";

// Random requests of two processes on a ConnectStore's sessions and on a plain Map, which must agree after each step.

const assert = require("node:assert/strict");
const { it } = require("node:test");
const fc = require("fast-check");
const { FileStore, MemoryStore } = require("..");
const { ConnectStore } = require("../connect.js");
const { makePlace } = require("./support/file-places.js");
const { makeRedisPlace } = require("./support/redis-places.js");
const { redisMissing } = require("./support/redis-servers.js");

const { next: newFolder } = makePlace();
const redis = makeRedisPlace();

const RUNS = 300;
const MINUTE = 60_000;
const HOUR = 60 * MINUTE;
const USERS = ["ada", "grace"];

/** What the contract says: a session that has ended is never there again. */
class Model {
  live = new Map();
  // Of each that was there: the latest expiry of a cookie that came with it.
  ends = new Map();

  save(sid, data, { expires }) {
    if (!this.live.has(sid)) return;
    this.live.set(sid, data);
    this.touch(sid, expires);
  }

  touch(sid, expires) {
    if (this.live.has(sid)) this.ends.set(sid, Math.max(this.ends.get(sid) ?? 0, expires));
  }

  ofUser(user) {
    return [...this.live].filter(([, data]) => data.user === user).map(([sid]) => sid);
  }

  endAll(sids) {
    for (const sid of sids) this.live.delete(sid);
  }
}

/** Two processes, and the requests that run in them: each holds what it loaded when it began. */
class World {
  model = new Model();
  requests = [];
  sids = [];
  #latest = Date.now() + 2 * HOUR;

  constructor(store, options) {
    this.leavesOut = options.touchAfter > 0;
    this.processes = [1, 2].map(
      () => new ConnectStore(store, { ...options, userId: (session) => session.user }),
    );
  }

  pick(list, at) {
    return list[at % list.length];
  }

  /** A cookie that ends later than all before; or, of a request that has been slow, sooner by so many minutes. */
  cookie(late = 0) {
    this.#latest += MINUTE;
    return { originalMaxAge: HOUR, expires: new Date(this.#latest - late * MINUTE), path: "/" };
  }

  async login({ process, user }) {
    const connect = this.processes[process];
    const sid = `sid-${this.sids.length}`;
    this.sids.push(sid);
    const session = { cookie: this.cookie(), user, n: 0 };
    await connect.set(sid, session);
    this.model.live.set(sid, { user, n: 0 });
    this.model.touch(sid, session.cookie.expires);
    this.requests.push({ connect, sid, session });
  }

  async begin({ process, which }) {
    if (this.sids.length === 0) return;
    const connect = this.processes[process];
    const sid = this.pick(this.sids, which);
    const session = await connect.get(sid);
    assert.equal(session !== null, this.model.live.has(sid));
    if (session !== null) this.requests.push({ connect, sid, session });
  }

  async save({ which, n, copies }) {
    if (this.requests.length === 0) return;
    const { connect, sid, session } = this.pick(this.requests, which);
    session.n = n;
    session.cookie = this.cookie();
    // @fastify/session makes an object of its own of what it loads.
    await connect.set(sid, copies ? { ...session } : session);
    this.model.save(sid, { user: session.user, n }, session.cookie);
  }

  async touch({ which, late, copies }) {
    if (this.requests.length === 0) return;
    const { connect, sid, session } = this.pick(this.requests, which);
    // Of a copy nobody knows that it was loaded: its cookie counts, whatever it says.
    session.cookie = this.cookie(copies ? 0 : late);
    await connect.touch(sid, copies ? { ...session } : session);
    this.model.touch(sid, session.cookie.expires);
  }

  async destroy({ process, which }) {
    if (this.sids.length === 0) return;
    const sid = this.pick(this.sids, which);
    await this.processes[process].destroy(sid);
    this.model.live.delete(sid);
  }

  async destroyByUser({ process, user }) {
    const ended = this.model.ofUser(user);
    assert.equal(await this.processes[process].destroyByUser(user), ended.length);
    this.model.endAll(ended);
  }

  async clear({ process }) {
    await this.processes[process].clear();
    this.model.live.clear();
  }

  async compare() {
    const [one, other] = this.processes;
    const expected = Object.fromEntries(this.model.live);
    const seen = {};
    for (const [sid, { cookie, ...data }] of Object.entries(await one.all())) {
      seen[sid] = data;
      if (!this.leavesOut) assert.equal(Date.parse(cookie.expires), this.model.ends.get(sid));
    }
    assert.deepEqual(seen, expected);
    assert.deepEqual((await other.ids()).sort(), Object.keys(expected).sort());
    for (const user of USERS) {
      assert.deepEqual(
        (await other.getByUser(user)).map(({ sid }) => sid).sort(),
        this.model.ofUser(user).sort(),
      );
    }
  }
}

const which = fc.nat({ max: 20 });
const ofTwo = fc.nat({ max: 1 });
const user = fc.constantFrom(...USERS);
const step = (name, fields) => fc.record({ name: fc.constant(name), ...fields });
const steps = fc.oneof(
  { weight: 4, arbitrary: step("login", { process: ofTwo, user }) },
  { weight: 5, arbitrary: step("begin", { process: ofTwo, which }) },
  { weight: 6, arbitrary: step("save", { which, n: fc.nat(), copies: fc.boolean() }) },
  { weight: 3, arbitrary: step("touch", { which, late: fc.nat({ max: 60 }), copies: fc.boolean() }) },
  { weight: 3, arbitrary: step("destroy", { process: ofTwo, which }) },
  { weight: 1, arbitrary: step("destroyByUser", { process: ofTwo, user }) },
  { weight: 1, arbitrary: step("clear", { process: ofTwo }) },
);

const KINDS = {
  "a MemoryStore": [() => new MemoryStore(), {}],
  "a MemoryStore that leaves touches out": [() => new MemoryStore(), { touchAfter: HOUR }],
  "a part of a MemoryStore": [() => new MemoryStore(), { prefix: "app:" }],
  "a FileStore": [() => new FileStore({ path: newFolder() }), {}, RUNS / 4],
  "a RedisStore": [() => redis.open(), {}, RUNS / 4, redisMissing],
};

for (const [name, [open, options, numRuns = RUNS, skip = false]] of Object.entries(KINDS)) {
  it(`a ConnectStore over ${name} does what its model does`, { skip }, async () => {
    const property = fc.asyncProperty(fc.array(steps, { maxLength: 40 }), async (list) => {
      const store = open();
      const world = new World(store, options);
      for (const { name, ...given } of list) {
        await world[name](given);
        await world.compare();
      }
      await store.close();
    });
    await fc.assert(property, { numRuns });
    console.log(`property cases: ${numRuns}`);
  });
}
