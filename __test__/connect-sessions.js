"use strict";

// `sessions()` of a ConnectStore over any store, as a part of `connect-conformance.js`.

const assert = require("node:assert/strict");
const { afterEach, it, mock } = require("node:test");

const MINUTE = 60_000;
const HOUR = 60 * MINUTE;

const cookie = (maxAge, more) => ({
  originalMaxAge: maxAge,
  expires: maxAge === null ? null : new Date(Date.now() + maxAge),
  path: "/",
  ...more,
});

const byUser = { userId: (session) => session.user };

async function all(connect, options) {
  const entries = {};
  for await (const { sid, ...entry } of connect.sessions(options)) {
    assert.ok(!(sid in entries), "given once");
    entries[sid] = entry;
  }
  return entries;
}

/** The entry of the only session. */
async function only(connect) {
  const [entry, ...others] = Object.values(await all(connect));
  assert.equal(others.length, 0);
  return entry;
}

/** Puts JavaScript's clock ahead, for this call and what follows in the test. */
function wait(millis) {
  const now = Date.now() + millis;
  mock.restoreAll();
  const started = Date.now();
  mock.method(Date, "now", () => now + (performance.timeOrigin + performance.now() - started));
  return Math.round(now);
}

const isAbout = (date, time, what) =>
  assert.ok(Math.abs(date - time) < 5000, `${what}: ${date?.toISOString()}`);

/** @param {(options?: object) => object} connectOf A ConnectStore on the store of the test that runs. */
function connectSessions(connectOf, createStore, ConnectStore, failsWith) {
  afterEach(() => mock.restoreAll());

  it("yields each session with its times, and getByUser returns the same", async () => {
    const connect = connectOf(byUser);
    const at = Date.now();
    await connect.set("a", { cookie: cookie(HOUR), user: "ada", cart: [1] });
    await connect.set("b", { cookie: cookie(2 * HOUR), user: "ben" });
    const { a, b, ...others } = await all(connect);
    assert.deepEqual(others, {});
    assert.deepEqual(a.session, await connect.get("a"));
    for (const { createdAt, lastUsedAt } of [a, b]) {
      isAbout(createdAt, at, "creation");
      isAbout(lastUsedAt, at, "use");
      assert.ok(lastUsedAt >= createdAt || createdAt - lastUsedAt < 1000);
    }
    assert.equal(b.expiresAt - a.expiresAt > HOUR - MINUTE, true);
    assert.deepEqual(await all(connect, { userId: "ada" }), { a });
    assert.deepEqual(await connect.getByUser("ada"), [{ sid: "a", ...a, expires: a.expiresAt }]);
  });

  it("reports when a session was last set or touched", async () => {
    const connect = connectOf();
    const created = Date.now();
    await connect.set("a", { cookie: cookie(HOUR) });
    for (const act of ["touch", "set"]) {
      const at = wait(10 * MINUTE);
      const session = await connect.get("a");
      session.cookie.expires = new Date(Date.now() + HOUR);
      if (act === "set") session.count = 1;
      await connect[act]("a", session);
      const entry = await only(connect);
      isAbout(entry.lastUsedAt, at, act);
      isAbout(entry.createdAt, created, "creation");
      wait(MINUTE);
      isAbout((await only(connect)).lastUsedAt, at, "a read is no use");
    }
  });

  it("uses ttl as the lifetime of a session whose cookie has no expiry", async () => {
    const connect = connectOf({ ttl: HOUR });
    await connect.set("a", { cookie: cookie(null) });
    const at = wait(20 * MINUTE);
    await connect.touch("a", await connect.get("a"));
    isAbout((await only(connect)).lastUsedAt, at, "touch");
    const byFunction = connectOf({ ttl: () => HOUR });
    assert.equal((await only(byFunction)).lastUsedAt, undefined);
    // As if it had been used before its creation, or in the future.
    assert.equal((await only(connectOf({ ttl: 3 * HOUR }))).lastUsedAt, undefined);
    assert.equal((await only(connectOf({ ttl: MINUTE }))).lastUsedAt, undefined);
  });

  it("reports no last use if maxLifetime has set the expiry", async () => {
    const inner = createStore({ maxLifetime: HOUR });
    const connect = new ConnectStore(inner);
    await connect.set("a", { cookie: cookie(30 * MINUTE) });
    assert.ok((await only(connect)).lastUsedAt instanceof Date);
    wait(29 * MINUTE);
    const session = await connect.get("a");
    session.cookie.expires = new Date(Date.now() + 40 * MINUTE);
    await connect.touch("a", session);
    assert.equal((await only(connect)).lastUsedAt, undefined);
    await inner.close();
  });

  it("leaves out sessions with other prefixes, and records that are not from a framework", async () => {
    const shop = connectOf({ prefix: "shop:", ...byUser });
    const blog = connectOf({ prefix: "blog:", ...byUser });
    await shop.store.create({ sessionId: "shop:fluid", userId: "ada", expires: cookie(HOUR).expires });
    for (const connect of [shop, blog]) await connect.set("a", { cookie: cookie(HOUR), user: "ada" });
    for (const options of [undefined, { userId: "ada" }]) {
      assert.deepEqual(Object.keys(await all(shop, options)), ["a"]);
    }
  });

  it("yields sessions that can be set again, and sees all earlier calls", async () => {
    const connect = connectOf();
    const setting = connect.set("a", { cookie: cookie(HOUR) });
    const { session } = await only(connect);
    await setting;
    session.cart = [1];
    await connect.set("a", session);
    assert.deepEqual((await only(connect)).session.cart, [1]);
  });

  it("can be left early, and refuses invalid users", async () => {
    const connect = connectOf(byUser);
    for (const sid of ["a", "b", "c"]) await connect.set(sid, { cookie: cookie(HOUR), user: "ada" });
    for await (const { sid } of connect.sessions()) {
      assert.equal(typeof sid, "string");
      break;
    }
    for (const userId of [undefined, null]) {
      await assert.rejects(
        connect.sessions({ userId }).next(),
        failsWith("ERR_INVALID_SESSION", /^userId must/),
      );
    }
    await assert.rejects(connect.sessions({ prefix: "a" }).next(), failsWith("ERR_INVALID_OPTION", /prefix/));
  });
}

module.exports = { connectSessions };
