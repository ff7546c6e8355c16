"use strict";

// Random requests on a ConnectStore whose store has a maxLifetime, with a mocked clock: no session outlives its end,
// and each reports the right end.

const assert = require("node:assert/strict");
const { describe, it } = require("node:test");
const fc = require("fast-check");
const { FileStore, MemoryStore } = require("..");
const { ConnectStore } = require("../connect.js");
const { makePlace } = require("./support/file-places.js");

const { next: newFolder } = makePlace();
const RUNS = 150;
const MINUTE = 60_000;
// Time advances by tens of seconds, so that no session ends while the test reads.
const TICK = 10_000;
const LIFETIME = 20 * MINUTE + TICK / 2;
const MAX_AGE = 6 * MINUTE + TICK / 2;
// The clock of a store runs while the mocked one stands still.
const DRIFT = 4000;

const KINDS = {
  MemoryStore: [(options) => new MemoryStore(options)],
  FileStore: [(options) => new FileStore({ path: newFolder(), ...options }), RUNS / 5],
};

/** A cookie of express-session: each request renews it. */
class Cookie {
  constructor(fields) {
    Object.assign(this, { originalMaxAge: MAX_AGE, path: "/", httpOnly: true, ...fields });
    this.expires = fields === undefined ? new Date(Date.now() + MAX_AGE) : new Date(this.expires);
  }
}

class Session {
  constructor(loaded) {
    Object.assign(this, loaded);
    this.cookie = new Cookie(loaded.cookie);
  }

  touch() {
    this.cookie.expires = new Date(Date.now() + this.cookie.originalMaxAge);
  }
}

/** Apps that share one store, and the sessions that they may see. */
class World {
  ends = new Map();
  requests = [];

  constructor(store, options) {
    this.apps = [1, 2].map(() => {
      const connect = new ConnectStore(store, { userId: () => "ada", ...options });
      connect.generate = (req) => {
        req.session = new Session({});
      };
      return connect;
    });
  }

  async login({ app }) {
    const [connect, req] = [this.apps[app % 2], { sessionID: `sid-${this.ends.size}` }];
    connect.generate(req);
    await connect.set(req.sessionID, req.session);
    this.ends.set(req.sessionID, Date.now() + LIFETIME + DRIFT);
    this.requests.push({ connect, sid: req.sessionID, session: req.session });
  }

  async begin({ app, which }) {
    const sids = [...this.ends.keys()];
    if (sids.length === 0) return;
    const sid = sids[which % sids.length];
    const connect = this.apps[app % 2];
    const loaded = await connect.get(sid);
    if (loaded !== null) this.requests.push({ connect, sid, session: new Session(loaded) });
  }

  /** The end of a request, which renews the cookie: the session was used, or changed. */
  async end({ which, change, forever }) {
    if (this.requests.length === 0) return;
    const { connect, sid, session } = this.requests[which % this.requests.length];
    session.touch();
    if (forever) session.cookie.expires = new Date(Date.now() + 1000 * LIFETIME);
    if (change === 0) return connect.touch(sid, session);
    session.n = change;
    await connect.set(sid, session).catch((error) => assert.equal(error.code, "ERR_SESSION_ENDED"));
  }

  async compare() {
    const now = Date.now();
    const seen = new Map();
    for (const [sid, session] of Object.entries(await this.apps[0].all())) {
      seen.set(sid, Date.parse(session.cookie.expires));
    }
    const ofUser = await this.apps[1].getByUser("ada");
    assert.deepEqual(new Map(ofUser.map(({ sid, expires }) => [sid, expires.getTime()])), seen);
    assert.equal(await this.apps[0].length(), seen.size);
    for (const [sid, end] of seen) {
      assert.ok(
        end > now && end <= this.ends.get(sid),
        `${sid} ends at ${end}, by its lifetime ${this.ends.get(sid)}`,
      );
    }
  }
}

const nat = fc.nat({ max: 50 });
const step = (name, fields) => fc.record({ name: fc.constant(name), ...fields });
const steps = fc.oneof(
  step("login", { app: nat }),
  { weight: 2, arbitrary: step("begin", { app: nat, which: nat }) },
  {
    weight: 4,
    arbitrary: step("end", { which: nat, change: fc.nat({ max: 3 }), forever: fc.boolean() }),
  },
  { weight: 3, arbitrary: step("wait", { ticks: fc.nat({ max: 60 }) }) },
);

for (const [name, [open, numRuns = RUNS]] of Object.entries(KINDS)) {
  for (const options of [{}, { touchAfter: 2 * MINUTE }, { prefix: "app:" }]) {
    it(`no session of a ConnectStore over a ${name} outlives it, with ${JSON.stringify(options)}`, async (t) => {
      t.mock.timers.enable({ apis: ["Date"], now: Date.now() });
      const property = fc.asyncProperty(fc.array(steps, { minLength: 5, maxLength: 40 }), async (list) => {
        const store = open({ maxLifetime: LIFETIME, sweepInterval: 0 });
        const world = new World(store, options);
        await world.login({ app: 0 });
        for (const { name, ticks, ...given } of list) {
          if (name === "wait") t.mock.timers.tick(ticks * TICK);
          else await world[name](given);
          await world.compare();
        }
        t.mock.timers.tick(LIFETIME + DRIFT);
        await world.compare();
        assert.equal(await store.size(), 0);
        await store.close();
      });
      await fc.assert(property, { numRuns });
      console.log(`property cases: ${numRuns}`);
    });
  }
}

describe("maxLifetime of a ConnectStore", () => {
  it("is the maxLifetime of its store", async () => {
    const store = new MemoryStore({ maxLifetime: LIFETIME });
    new ConnectStore(store, { maxLifetime: LIFETIME });
    new ConnectStore(store);
    const refuses = (other, maxLifetime, words) =>
      assert.throws(
        () => new ConnectStore(other, { maxLifetime }),
        (error) => error.code === "ERR_INVALID_OPTION" && words.test(error.message),
      );
    refuses(
      store,
      5,
      /^maxLifetime must be that of the store, such as .+; got 5, where the store has 1205000$/,
    );
    const unlimited = new MemoryStore();
    refuses(
      unlimited,
      LIFETIME,
      /^maxLifetime must be that of the store.+; got 1205000, where the store has none$/,
    );
    for (const value of [0, -1, 1.5, "10"])
      refuses(store, value, /^maxLifetime must be a whole number of milliseconds/);
    await Promise.all([store.close(), unlimited.close()]);
  });
});
