"use strict";

// Random requests of two processes on a ConnectStore and on a plain Map, which must agree after each step.

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

/** The contract: a session that has ended comes back only by a new login. */
class Model {
  live = new Map();
  // The expiry of each live session.
  ends = new Map();

  begin(sid, data, expires) {
    this.live.set(sid, data);
    this.ends.set(sid, Number(expires));
  }

  save(sid, data, expires) {
    if (this.live.has(sid)) this.begin(sid, data, expires);
  }

  prolong(sid, expires) {
    this.ends.set(sid, Math.max(this.ends.get(sid), expires));
  }

  ofUser(user) {
    return [...this.live].filter(([, data]) => data.user === user).map(([sid]) => sid);
  }

  endAll(sids) {
    for (const sid of sids) this.live.delete(sid);
  }
}

/** The session of a request, as a framework creates it. */
class FrameworkSession {
  constructor(loaded) {
    Object.assign(this, loaded);
  }

  touch() {}
}

/** Two processes, and their running requests: each holds the session that it loaded at its start. */
class World {
  model = new Model();
  requests = [];
  sids = [];
  #latest = Date.now() + 2 * HOUR;

  constructor(store, options) {
    this.leavesOut = options.touchAfter > 0;
    this.processes = [1, 2].map(() => {
      const connect = new ConnectStore(store, { ...options, userId: (session) => session.user });
      // Like express-session.
      connect.generate = (req) => {
        req.session = new FrameworkSession({ cookie: this.cookie() });
      };
      // The ids that the process has seen: an object without a mark may be a copy of such a session.
      return { connect, met: new Set() };
    });
  }

  pick(list, at) {
    return list[at % list.length];
  }

  /** Returns a cookie that ends later than all earlier ones, or for a slow request earlier by `sooner` minutes. */
  cookie(late = 0) {
    this.#latest += MINUTE;
    return { originalMaxAge: HOUR, expires: new Date(this.#latest - late * MINUTE), path: "/" };
  }

  /** A new session with a new id, or with a reused one, as in apps that choose their ids. */
  async login({ process, user, reuses, which }) {
    const { connect, met } = this.processes[process];
    const isReused = reuses && this.sids.length > 0;
    const sid = isReused ? this.pick(this.sids, which) : `sid-${this.sids.length}`;
    if (!isReused) this.sids.push(sid);
    const req = { sessionID: sid };
    connect.generate(req);
    const session = Object.assign(req.session, { user, n: 0 });
    await connect.set(sid, session);
    met.add(sid);
    this.model.begin(sid, { user, n: 0 }, session.cookie.expires);
    const loadedEnd = Number(session.cookie.expires);
    this.requests.push({ process, sid, session, loadedEnd, isFramework: true, isKnown: true });
  }

  async begin({ process, which }) {
    if (this.sids.length === 0) return;
    const { connect, met } = this.processes[process];
    const sid = this.pick(this.sids, which);
    const session = await connect.get(sid);
    assert.equal(session !== null, this.model.live.has(sid));
    if (session === null) return;
    met.add(sid);
    const loadedEnd = Date.parse(session.cookie.expires);
    this.requests.push({ process, sid, session, loadedEnd, isKnown: true });
  }

  async save({ which, n, how }) {
    if (this.requests.length === 0) return;
    const request = this.pick(this.requests, which);
    const { process, sid, session } = request;
    const { connect, met } = this.processes[process];
    session.n = n;
    Object.assign(session.cookie, this.cookie());
    const { expires } = session.cookie;
    const data = { user: session.user, n };
    const isUnknown = how === "deep copy" || (how === "shallow copy" && request.isFramework);
    const given = COPIES[how](session);
    // The object's origin does not know the write of an unmarked copy.
    request.isKnown = !isUnknown;
    if (isUnknown && !this.model.live.has(sid) && met.has(sid)) {
      await assert.rejects(connect.set(sid, given), { code: "ERR_SESSION_ENDED" });
      return;
    }
    await connect.set(sid, given);
    if (isUnknown && !met.has(sid)) this.model.begin(sid, data, expires);
    else this.model.save(sid, data, expires);
    if (isUnknown) met.add(sid);
    if (!isUnknown && this.model.live.has(sid)) request.loadedEnd = Number(expires);
  }

  /** Saves a session that the request has not changed since it loaded or stored it. */
  async resave({ which }) {
    if (this.requests.length === 0) return;
    const request = this.pick(this.requests, which);
    if (!request.isKnown) return;
    const { process, sid, session } = request;
    Object.assign(session.cookie, this.cookie());
    await this.processes[process].connect.set(sid, session);
    // Later changes by others are kept.
    if (this.model.live.has(sid)) this.model.prolong(sid, session.cookie.expires);
  }

  async touch({ which, late, how }) {
    if (this.requests.length === 0) return;
    const request = this.pick(this.requests, which);
    const { process, sid, session, loadedEnd } = request;
    const { connect } = this.processes[process];
    const isUnknown = how === "deep copy" || (how === "shallow copy" && request.isFramework);
    // The cookie with which a copy was loaded is unknown, so its own cookie counts.
    Object.assign(session.cookie, this.cookie(isUnknown ? 0 : late));
    const end = Number(session.cookie.expires);
    await connect.touch(sid, COPIES[how](session));
    if (!this.model.live.has(sid)) return;
    if (isUnknown || end > loadedEnd) return this.model.prolong(sid, end);
    // A framework renews the cookie of each request, which never shortens the session. A change by the app may.
    if (request.isFramework || end === loadedEnd) return;
    this.model.ends.set(sid, end);
    request.loadedEnd = end;
  }

  async destroy({ process, which }) {
    if (this.sids.length === 0) return;
    const sid = this.pick(this.sids, which);
    const { connect, met } = this.processes[process];
    await connect.destroy(sid);
    met.add(sid);
    this.model.live.delete(sid);
  }

  async destroyByUser({ process, user }) {
    const ended = this.model.ofUser(user);
    assert.equal(await this.processes[process].connect.destroyByUser(user), ended.length);
    this.model.endAll(ended);
  }

  async clear({ process }) {
    const { connect, met } = this.processes[process];
    await connect.clear();
    met.clear();
    this.model.live.clear();
  }

  async compare() {
    const [one, other] = this.processes.map(({ connect }) => connect);
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

const COPIES = {
  itself: (session) => session,
  "shallow copy": (session) => ({ ...session }),
  "deep copy": (session) => structuredClone({ ...session, cookie: { ...session.cookie } }),
};

const which = fc.nat({ max: 20 });
const how = fc.constantFrom(...Object.keys(COPIES));
const ofTwo = fc.nat({ max: 1 });
const user = fc.constantFrom(...USERS);
const step = (name, fields) => fc.record({ name: fc.constant(name), ...fields });
const steps = fc.oneof(
  { weight: 4, arbitrary: step("login", { process: ofTwo, user, reuses: fc.boolean(), which }) },
  { weight: 5, arbitrary: step("begin", { process: ofTwo, which }) },
  { weight: 6, arbitrary: step("save", { which, n: fc.nat(), how }) },
  { weight: 3, arbitrary: step("resave", { which }) },
  { weight: 3, arbitrary: step("touch", { which, late: fc.nat({ max: 60 }), how }) },
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
  it(`a ConnectStore over ${name} behaves like its model`, { skip }, async () => {
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
