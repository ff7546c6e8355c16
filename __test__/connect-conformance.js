"use strict";

// The contract of a ConnectStore over any store as tests. `connectConformance("FileStore", createStore)` registers
// them.

const assert = require("node:assert/strict");
const { EventEmitter } = require("node:events");
const { afterEach, beforeEach, describe, it } = require("node:test");
const { connectSessions } = require("./connect-sessions.js");
const { callingBack } = require("./support/callbacks.js");
const { later } = require("./support/later.js");

const MINUTE = 60_000;
const HOUR = 60 * MINUTE;
const DAY = 24 * HOUR;

const inFuture = (millis) => new Date(Date.now() + millis);

/** A persistent cookie in the form of express-session. */
const lasting = (millis = HOUR, more) => ({
  originalMaxAge: millis,
  expires: inFuture(millis),
  httpOnly: true,
  path: "/",
  ...more,
});
/** A cookie that ends with the browser. */
const passing = () => ({ originalMaxAge: null, expires: null, httpOnly: true, path: "/" });

/** Returns the session with another expiry in its cookie. */
const renewed = (session, millis) =>
  Object.assign(session, { cookie: { ...session.cookie, expires: inFuture(millis) } });

const asJson = (value) => JSON.parse(JSON.stringify(value));

const isNear = (actual, expected, what) =>
  assert.ok(Math.abs(actual - expected) < 20_000, `${what}: ${new Date(actual)}, not ${new Date(expected)}`);

/**
 * Returns the session that a framework makes from a loaded one. `@fastify/session` before 11.1.2 keeps nothing else.
 */
class FrameworkSession {
  #isModified;

  constructor(loaded, { isModified = true } = {}) {
    Object.assign(this, loaded);
    this.#isModified = isModified;
  }

  touch() {}

  isModified() {
    return this.#isModified;
  }
}

let made = 0;
const newId = () => `sid-${++made}`;

/**
 * @param {string} name of the store
 * @param {(options?: object) => object} createStore makes an empty one
 * @param {{ ConnectStore: Function, SessionStoreError: Function }} classes of the package under test
 * @param {object} [options] of the suite, such as `skip`
 */
function connectConformance(name, createStore, { ConnectStore, SessionStoreError }, options = {}) {
  const failsWith = (code, words) => (error) => {
    assert.ok(error instanceof SessionStoreError, `not a SessionStoreError: ${error?.stack}`);
    assert.equal(error.code, code);
    assert.match(error.message, words);
    return true;
  };

  describe(`a ConnectStore over ${name}`, options, () => {
    let inner;
    let store;
    beforeEach(() => {
      inner = createStore();
      store = new ConnectStore(inner);
    });
    afterEach(() => inner.close());

    /** Another ConnectStore on the same sessions, like in another process, which has not seen their ids. */
    const other = (options) => new ConnectStore(inner, options);
    const sidsOf = async (connect, user) => (await connect.getByUser(user)).map(({ sid }) => sid);
    const endOf = async (sid) => Date.parse((await inner.get(sid)).expires);

    it("is an emitter of events, and knows its store", () => {
      assert.ok(store instanceof EventEmitter);
      assert.equal(store.store, inner);
    });

    describe("set and get", () => {
      it("return the stored session, as JSON does", async () => {
        const sid = newId();
        const session = {
          cookie: lasting(),
          user: { name: "Ada", tags: ["a", null] },
          since: new Date(),
          none: undefined,
        };
        assert.equal(await store.set(sid, session), undefined);
        assert.deepEqual(await store.get(sid), asJson(session));
      });

      it("return null for an absent session", async () => {
        assert.equal(await store.get("nobody"), null);
        assert.deepEqual(await callingBack((done) => store.get("nobody", done)), [null, null]);
      });

      it("return parsed JSON, as do all lists", async () => {
        const connect = other({ userId: ({ user }) => user });
        const sid = newId();
        await connect.set(sid, { cookie: lasting(), user: "ada" });
        const found = [await connect.get(sid), (await connect.all())[sid]];
        for (const { session } of await connect.getByUser("ada")) found.push(session);
        for await (const { session } of connect.sessions()) found.push(session);
        assert.equal(found.length, 4);
        for (const { cookie } of found) {
          assert.equal(typeof cookie.expires, "string");
          assert.equal(typeof cookie.originalMaxAge, "number");
          assert.ok(!("maxAge" in cookie));
        }
      });

      it("return a copy each time, and do not follow the stored object", async () => {
        const sid = newId();
        const session = { cookie: lasting(), cart: [1] };
        await store.set(sid, session);
        session.cart.push(2);
        (await store.get(sid)).cart.push(3);
        assert.deepEqual((await store.get(sid)).cart, [1]);
      });

      it("store the session as it is at the time of the call", async () => {
        for (const connect of [store, other({ touchAfter: 1 })]) {
          const sid = newId();
          await connect.set(sid, { cookie: lasting(), step: 1 });
          const session = { ...(await connect.get(sid)), step: 2 };
          const saved = connect.set(sid, session);
          session.step = 3;
          await saved;
          assert.equal((await connect.get(sid)).step, 2);
        }
      });

      it("replace the whole session", async () => {
        const sid = newId();
        await store.set(sid, { cookie: lasting(), a: 1 });
        await store.set(sid, { cookie: lasting(), b: 2 });
        const { cookie: _, ...data } = await store.get(sid);
        assert.deepEqual(data, { b: 2 });
      });

      it("keep fields that have the names of the store's own", async () => {
        const sid = newId();
        const data = { sessionId: "mine", userId: 7, expires: "never", session: { session: 1 } };
        await store.set(sid, { cookie: lasting(), ...data });
        const { cookie: _, ...kept } = await store.get(sid);
        assert.deepEqual(kept, data);
      });

      it("treat any id and any content as data only", async () => {
        const ids = ["__proto__", "constructor", "../../etc/passwd", "a\0b", "é😀", " ", "*", "%"];
        const hostile = JSON.parse(
          '{"__proto__":{"admin":true},"constructor":1,"toString":null,"length":-1}',
        );
        for (const sid of ids) await store.set(sid, { cookie: lasting(), sid, hostile });
        for (const sid of ids) {
          const session = await store.get(sid);
          assert.equal(session.sid, sid);
          assert.equal(JSON.stringify(session.hostile), JSON.stringify(hostile));
        }
        assert.deepEqual(Object.keys(await store.all()).sort(), [...ids].sort());
        assert.equal({}.admin, undefined);
      });

      it("take a session without a cookie", async () => {
        const sid = newId();
        await store.set(sid, { a: 1 });
        assert.deepEqual(await store.get(sid), { a: 1 });
      });

      it("run concurrent calls in the order in which they were made", async () => {
        const sid = newId();
        const session = { cookie: lasting(), n: 0 };
        const calls = [];
        for (let n = 1; n <= 20; n++) calls.push(store.set(sid, { ...session, n }));
        await Promise.all(calls);
        assert.equal((await store.get(sid)).n, 20);
      });
    });

    for (const [how, options] of [
      ["", {}],
      [" with touchAfter", { touchAfter: MINUTE }],
      [" with a prefix", { prefix: "app:" }],
    ]) {
      describe(`a call${how} sees all earlier calls:`, () => {
        let connect;
        beforeEach(() => {
          connect = new ConnectStore(inner, { userId: ({ user }) => user, ...options });
        });
        const given = (more) => ({ cookie: lasting(), user: "rhea", ...more });
        const load = async (sid) => connect.get(sid);

        it("get sees set, touch and destroy", async () => {
          const sid = newId();
          const calls = [connect.set(sid, given())];
          assert.equal((await load(sid)).user, "rhea");
          const session = await load(sid);
          session.seen = 1;
          calls.push(connect.set(sid, session));
          assert.equal((await load(sid)).seen, 1);
          session.cookie.expires = inFuture(MINUTE);
          calls.push(connect.touch(sid, session));
          isNear(
            new Date((await load(sid)).cookie.expires).getTime(),
            Date.now() + MINUTE,
            "the touched end",
          );
          calls.push(connect.destroy(sid));
          assert.equal(await load(sid), null);
          await Promise.all(calls);
        });

        it("the last of several sets wins, whichever of them have to read first", async () => {
          const sid = newId();
          await connect.set(sid, given());
          const [one, other] = [await load(sid), await load(sid)];
          const calls = [
            connect.set(sid, Object.assign(one, { by: "one" })),
            connect.set(sid, { ...other, by: "a copy" }),
            connect.set(sid, Object.assign(other, { by: "other" })),
          ];
          assert.equal((await load(sid)).by, "other");
          await Promise.all(calls);
          assert.equal((await load(sid)).by, "other");
        });

        it("a later save of the same request can undo an earlier one", async () => {
          const sid = newId();
          await connect.set(sid, { cookie: lasting() });
          const session = await load(sid);
          session.user = "ann";
          const calls = [connect.set(sid, session)];
          delete session.user;
          calls.push(connect.set(sid, session));
          await Promise.all(calls);
          assert.equal((await load(sid)).user, undefined);
        });

        it("the session is stored as it was when it was set, also for a live id", async () => {
          const sid = newId();
          const one = given({ n: 1 });
          await connect.set(sid, one);
          const other = new ConnectStore(inner, { userId: ({ user }) => user, ...options });
          for (const store of [connect, other]) {
            const session = { cookie: lasting(), user: "bob", n: 2 };
            // A session of the app, which has chosen this id for the second time.
            const calls = [store.set(sid, session), connect.get(sid).then((seen) => seen.n)];
            Object.assign(session, { user: "mallory", n: 3 });
            await Promise.all(calls);
            const { user, n } = await load(sid);
            assert.deepEqual([user, n], ["bob", 2]);
            assert.equal((await connect.getByUser("mallory")).length, 0);
          }
        });

        it("a set after destroy is not overwritten by a set before it", async () => {
          const sid = newId();
          await connect.set(sid, given());
          const session = await load(sid);
          const calls = [connect.set(sid, Object.assign(session, { old: true })), connect.destroy(sid)];
          assert.equal(await load(sid), null);
          await Promise.all(calls);
          assert.equal(await load(sid), null);
        });

        it("close completes earlier saves", async () => {
          const sid = newId();
          await connect.set(sid, given());
          const session = await load(sid);
          const calls = [connect.set(sid, Object.assign(session, { last: true })), connect.close()];
          await Promise.all(calls);
        });

        if (name.includes("Redis")) return;

        it("get sees destroyByUser, but for the session that it keeps, and clear", async () => {
          const [ended, kept] = [newId(), newId()];
          for (const sid of [ended, kept]) await connect.set(sid, given());
          const calls = [connect.destroyByUser("rhea", { except: kept })];
          assert.equal(await load(ended), null);
          assert.notEqual(await load(kept), null);
          calls.push(connect.clear());
          assert.equal(await load(kept), null);
          await Promise.all(calls);
        });
      });
    }

    describe("the end of a session", () => {
      it("is the end of its cookie", async () => {
        const sid = newId();
        const cookie = lasting(3 * HOUR);
        await store.set(sid, { cookie });
        assert.equal(await endOf(sid), cookie.expires.getTime());
        assert.equal((await store.get(sid)).cookie.expires, cookie.expires.toISOString());
      });

      it("may be a Date, text of any form or a number", async () => {
        const expires = new Date(Math.ceil(Date.now() / 1000) * 1000 + HOUR);
        for (const form of [expires, expires.toISOString(), expires.toUTCString(), expires.getTime()]) {
          const sid = newId();
          await store.set(sid, { cookie: { expires: form } });
          assert.equal(await endOf(sid), expires.getTime());
        }
      });

      it("comes after a day if the cookie has no expiry", async () => {
        for (const cookie of [
          passing(),
          { expires: false },
          { expires: undefined },
          { expires: new Date(Number.NaN) },
        ]) {
          const sid = newId();
          await store.set(sid, { cookie });
          isNear(await endOf(sid), Date.now() + DAY, "a day from now");
          assert.deepEqual((await store.get(sid)).cookie, asJson(cookie));
        }
      });

      it("comes after ttl if the cookie has no expiry", async () => {
        const sid = newId();
        await other({ ttl: HOUR }).set(sid, { cookie: passing() });
        isNear(await endOf(sid), Date.now() + HOUR, "ttl from now");
        const lastingId = newId();
        await other({ ttl: HOUR }).set(lastingId, { cookie: lasting(DAY) });
        isNear(await endOf(lastingId), Date.now() + DAY, "the cookie's");
      });

      it("comes after the result of ttl for the session", async () => {
        const connect = other({ ttl: (session) => (session.isAdmin ? MINUTE : HOUR) });
        for (const [isAdmin, millis] of [
          [true, MINUTE],
          [false, HOUR],
        ]) {
          const sid = newId();
          await connect.set(sid, { cookie: passing(), isAdmin });
          isNear(await endOf(sid), Date.now() + millis, "what ttl returned");
        }
      });

      it("is immediate for a session with a past cookie", async () => {
        const sid = newId();
        await store.set(sid, { cookie: lasting() });
        await store.set(sid, { cookie: lasting(-1) });
        assert.equal(await store.get(sid), null);
        assert.equal(await store.length(), 0);
      });
    });

    describe("touch", () => {
      it("moves the expiry and leaves the data as another request stored it", async () => {
        const sid = newId();
        await store.set(sid, { cookie: lasting(), step: 1 });
        const held = await store.get(sid);
        await other().set(sid, { ...held, step: 2 });
        const expires = inFuture(2 * HOUR);
        assert.equal(await store.touch(sid, { ...held, cookie: { ...held.cookie, expires } }), undefined);
        const kept = await store.get(sid);
        assert.equal(kept.cookie.expires, expires.toISOString());
        assert.equal(kept.step, 2);
        assert.equal(await endOf(sid), expires.getTime());
      });

      it("moves the expiry of a session cookie by ttl, and does not make the cookie persistent", async () => {
        const sid = newId();
        await store.set(sid, { cookie: passing() });
        await other({ ttl: 2 * DAY }).touch(sid, { cookie: passing() });
        isNear(await endOf(sid), Date.now() + 2 * DAY, "ttl from now");
        assert.equal((await store.get(sid)).cookie.expires, null);
      });

      it("stores a cookie if the request changed more than its expiry", async () => {
        const changes = [
          [lasting(), lasting(30 * DAY)],
          [lasting(), passing()],
          [passing(), lasting()],
          [lasting(), lasting(HOUR, { path: "/admin" })],
          [lasting(), lasting(HOUR, { secure: true, sameSite: "strict" })],
        ];
        for (const [before, after] of changes) {
          const sid = newId();
          await store.set(sid, { cookie: before, data: "kept" });
          const session = await store.get(sid);
          await store.touch(sid, Object.assign(session, { cookie: after }));
          assert.deepEqual(await store.get(sid), { cookie: asJson(after), data: "kept" });
          isNear(await endOf(sid), after.expires?.getTime() ?? Date.now() + DAY, "the cookie's end");
        }
      });

      it("stores a cookie that was changed in place", async () => {
        for (const connect of [store, other({ touchAfter: HOUR })]) {
          const sid = newId();
          await connect.set(sid, { cookie: lasting() });
          const touched = await connect.get(sid);
          touched.cookie.path = "/touched";
          await connect.touch(sid, touched);
          const saved = await connect.get(sid);
          assert.equal(saved.cookie.path, "/touched");
          saved.cookie.path = "/saved";
          await connect.set(sid, saved);
          assert.equal((await connect.get(sid)).cookie.path, "/saved");
        }
      });

      it("stores such a cookie without losing data from a concurrent save", async () => {
        const sid = newId();
        await store.set(sid, { cookie: lasting(), step: 1 });
        const [one, two] = [await store.get(sid), await store.get(sid)];
        const saved = store.set(sid, Object.assign(one, { step: 2 }));
        await Promise.all([saved, store.touch(sid, Object.assign(two, { cookie: lasting(30 * DAY) }))]);
        const { step, cookie } = await store.get(sid);
        assert.deepEqual([step, cookie.originalMaxAge], [2, 30 * DAY]);
      });

      it("keeps a later expiry that another request has set", async () => {
        const sid = newId();
        await store.set(sid, { cookie: lasting(HOUR) });
        const held = await store.get(sid);
        await other().set(sid, { cookie: lasting(30 * DAY), remembered: true });
        await store.touch(sid, Object.assign(held, { cookie: { ...held.cookie, expires: inFuture(HOUR) } }));
        isNear(await endOf(sid), Date.now() + 30 * DAY, "the longer life");
        assert.equal((await store.get(sid)).cookie.originalMaxAge, 30 * DAY);
      });

      it("keeps a later expiry that another request sets concurrently", async () => {
        for (const isFirst of [true, false]) {
          const sid = newId();
          await store.set(sid, { cookie: lasting(HOUR) });
          const held = await store.get(sid);
          const calls = [
            () => store.touch(sid, renewed(held, 2 * HOUR)),
            () => inner.touch(sid, inFuture(30 * DAY)),
          ];
          await Promise.all((isFirst ? calls : calls.reverse()).map((call) => call()));
          isNear(await endOf(sid), Date.now() + 30 * DAY, "the longer life");
        }
      });

      it("moves the expiry to the latest of concurrent requests", async () => {
        const sid = newId();
        await store.set(sid, { cookie: lasting(HOUR) });
        const stores = [store, other()];
        const requests = await Promise.all(
          Array.from({ length: 40 }, async (_, at) => {
            const connect = stores[at % 2];
            return { connect, session: renewed(await connect.get(sid), HOUR + ((at * 17) % 40) * MINUTE) };
          }),
        );
        await Promise.all(requests.map(({ connect, session }) => connect.touch(sid, session)));
        const latest = Math.max(...requests.map(({ session }) => session.cookie.expires));
        assert.equal(await endOf(sid), latest);
      });

      it("keeps a later expiry that others have set since the same request stored the session", async () => {
        const sid = newId();
        const held = { cookie: lasting(HOUR) };
        await store.set(sid, held);
        await other().touch(sid, { cookie: lasting(30 * DAY) });
        await store.touch(sid, Object.assign(held, { cookie: lasting(HOUR) }));
        isNear(await endOf(sid), Date.now() + 30 * DAY, "the longer life");
        assert.equal((await store.get(sid)).cookie.originalMaxAge, 30 * DAY);
      });

      it("does not read a session that the same request loaded or stored", async () => {
        const [loaded, stored] = [newId(), newId()];
        const held = { cookie: lasting(HOUR) };
        await store.set(loaded, { cookie: lasting(HOUR) });
        await store.set(stored, held);
        const session = await store.get(loaded);
        const { hits, misses } = await inner.stats();
        await store.touch(loaded, renewed(session, 2 * HOUR));
        await store.touch(stored, renewed(held, 2 * HOUR));
        const after = await inner.stats();
        assert.deepEqual([after.hits, after.misses], [hits, misses]);
        for (const sid of [loaded, stored]) isNear(await endOf(sid), Date.now() + 2 * HOUR, "two hours on");
      });

      it("calls an overridden touch of the store", async () => {
        const sid = newId();
        await store.set(sid, { cookie: lasting(HOUR) });
        const [held, late] = [await store.get(sid), await store.get(sid)];
        const calls = [];
        const { touch } = inner;
        inner.touch = (...args) => {
          calls.push(args);
          return touch.apply(inner, args);
        };
        await store.touch(sid, renewed(held, 2 * HOUR));
        await store.touch(sid, renewed(late, HOUR + MINUTE));
        assert.deepEqual(calls, [[sid, held.cookie.expires]]);
        assert.equal(await endOf(sid), held.cookie.expires.getTime());
      });

      it("shortens the lifetime if the app does so", async () => {
        const sid = newId();
        await store.set(sid, { cookie: lasting(HOUR) });
        await other().touch(sid, { cookie: lasting(HOUR, { expires: inFuture(MINUTE) }) });
        isNear(await endOf(sid), Date.now() + MINUTE, "a minute from now");
        await other().touch(sid, { cookie: lasting(HOUR, { expires: inFuture(-1) }) });
        assert.equal(await store.get(sid), null);
      });

      it("does not shorten a framework's session below an expiry that others have set", async () => {
        const sid = newId();
        await store.set(sid, { cookie: lasting(HOUR) });
        await inner.touch(sid, inFuture(30 * DAY));
        const held = new FrameworkSession(await store.get(sid));
        held.cookie.expires = inFuture(HOUR);
        await store.touch(sid, held);
        isNear(await endOf(sid), Date.now() + 30 * DAY, "the longer life");
      });

      it("creates nothing", async () => {
        const sid = newId();
        assert.equal(await store.touch(sid, { cookie: lasting() }), undefined);
        assert.equal(await store.get(sid), null);
        assert.equal(await inner.size(), 0);
      });
    });

    describe("touchAfter", () => {
      const touched = async (options, { life = HOUR, moved }) => {
        const sid = newId();
        const before = inFuture(life - moved);
        await store.set(sid, { cookie: lasting(life, { expires: before }) });
        const connect = other(options);
        const session = await connect.get(sid);
        const after = inFuture(life);
        await connect.touch(sid, Object.assign(session, { cookie: lasting(life, { expires: after }) }));
        return (await endOf(sid)) === after.getTime();
      };

      it("skips touches that move the expiry by less", async () => {
        assert.equal(await touched({ touchAfter: 10 * MINUTE }, { moved: 9 * MINUTE }), false);
        assert.equal(await touched({ touchAfter: 10 * MINUTE }, { moved: 11 * MINUTE }), true);
        assert.equal(await touched({}, { moved: 10 }), true);
      });

      it("skips touches directly after one of another request", async () => {
        const connect = other({ touchAfter: 10 * MINUTE });
        const sid = newId();
        await store.set(sid, { cookie: lasting(HOUR, { expires: inFuture(40 * MINUTE) }) });
        const held = await Promise.all([1, 2, 3].map(() => connect.get(sid)));
        const ends = held.map((_, at) => inFuture(HOUR + at * MINUTE));
        for (const [at, session] of held.entries()) {
          const cookie = lasting(HOUR, { expires: ends[at] });
          await connect.touch(sid, Object.assign(session, { cookie }));
        }
        assert.equal(await endOf(sid), ends[0].getTime());
      });

      it("always leaves a session in use at least half of its lifetime", async () => {
        assert.equal(await touched({ touchAfter: DAY }, { moved: 20 * MINUTE }), false);
        assert.equal(await touched({ touchAfter: DAY }, { moved: 31 * MINUTE }), true);
      });

      it("skips only a set that changes nothing", async () => {
        const connect = other({ touchAfter: 10 * MINUTE });
        const sid = newId();
        const expires = inFuture(HOUR);
        await connect.set(sid, { cookie: lasting(HOUR, { expires }), cart: ["tea"] });
        const again = async (change) => {
          const later = new Date(expires.getTime() + MINUTE);
          await connect.set(sid, {
            ...(await connect.get(sid)),
            cookie: lasting(HOUR, { expires: later }),
            ...change,
          });
          return (await endOf(sid)) === later.getTime();
        };
        assert.equal(await again(), false);
        assert.equal(await again({ cart: ["tea", "milk"] }), true);
        assert.deepEqual((await connect.get(sid)).cart, ["tea", "milk"]);
      });

      it("does not skip a set that changes only the user", async () => {
        const sid = newId();
        await store.set(sid, { cookie: lasting(), user: 42 });
        const users = [
          ["stored without the option userId", ({ user }) => user, 42],
          ["of another type", ({ user }) => String(user), "42"],
          ["an object", ({ user }) => ({ user }), { user: 42 }],
          ["of no user now", () => undefined, undefined],
        ];
        for (const [what, userId, user] of users) {
          const connect = other({ touchAfter: HOUR, userId });
          for (const [id, session] of Object.entries(await connect.all())) await connect.set(id, session);
          assert.deepEqual((await inner.get(sid)).userId, user, what);
          if (user !== undefined) assert.deepEqual(await sidsOf(connect, user), [sid], what);
          else assert.deepEqual(await sidsOf(connect, { user: 42 }), [], what);
        }
      });

      it("skips a set of a session with the same user", async () => {
        const connect = other({ touchAfter: HOUR, userId: ({ user }) => ({ user }) });
        const sid = newId();
        const expires = inFuture(HOUR);
        await connect.set(sid, { cookie: lasting(HOUR, { expires }), user: 42 });
        const later = new Date(expires.getTime() + MINUTE);
        await connect.set(sid, { cookie: lasting(HOUR, { expires: later }), user: 42 });
        assert.equal(await endOf(sid), expires.getTime());
      });

      it("does not skip a changed cookie", async () => {
        const connect = other({ touchAfter: HOUR });
        const sid = newId();
        await connect.set(sid, { cookie: lasting() });
        await connect.touch(sid, { cookie: lasting(HOUR, { path: "/other" }) });
        assert.equal((await connect.get(sid)).cookie.path, "/other");
        await connect.set(sid, { cookie: lasting(HOUR, { path: "/third" }) });
        assert.equal((await connect.get(sid)).cookie.path, "/third");
      });
    });

    describe("a set of an unchanged session", () => {
      const load = async (more, options) => {
        const connect = other(options);
        const sid = newId();
        await connect.set(sid, { cookie: lasting(), step: 1, ...more });
        return { connect, sid, session: await connect.get(sid) };
      };
      const saveElsewhere = async (sid, more) =>
        other().set(sid, Object.assign(await other().get(sid), more));

      it("moves the expiry, and does not undo changes of another request", async () => {
        for (const options of [{}, { touchAfter: MINUTE }, { userId: ({ user }) => user }]) {
          for (const user of [undefined, "ada", 7]) {
            const { connect, sid, session } = await load({ user }, options);
            await saveElsewhere(sid, { step: 2 });
            assert.equal(await connect.set(sid, renewed(session, 2 * HOUR)), undefined);
            const kept = await connect.get(sid);
            assert.equal(kept.step, 2);
            assert.equal(kept.cookie.expires, session.cookie.expires.toISOString());
          }
        }
      });

      it("does not undo a concurrent save", async () => {
        for (const isFirst of [true, false]) {
          for (const options of [{}, { touchAfter: MINUTE }]) {
            const { connect, sid, session } = await load({}, options);
            const changed = Object.assign(await connect.get(sid), { step: 2 });
            const calls = [
              () => connect.set(sid, renewed(session, 2 * HOUR)),
              () => connect.set(sid, changed),
            ];
            await Promise.all((isFirst ? calls : calls.reverse()).map((call) => call()));
            assert.equal((await connect.get(sid)).step, 2);
          }
        }
      });

      it("accepts a copy", async () => {
        const { connect, sid, session } = await load();
        await saveElsewhere(sid, { step: 2 });
        await connect.set(sid, { ...session });
        assert.equal((await connect.get(sid)).step, 2);
      });

      it("compares to the last session that the same request stored", async () => {
        const sid = newId();
        const held = new FrameworkSession({ cookie: lasting(), step: 1 });
        await store.set(sid, held);
        await saveElsewhere(sid, { step: 2 });
        await store.set(sid, renewed(held, 2 * HOUR));
        assert.equal((await store.get(sid)).step, 2);
        await store.set(sid, Object.assign(held, { step: 3 }));
        await saveElsewhere(sid, { step: 4 });
        await store.set(sid, renewed(held, 3 * HOUR));
        assert.equal((await store.get(sid)).step, 4);
      });

      it("writes a change that the request reverts", async () => {
        const { connect, sid, session } = await load();
        await connect.set(sid, Object.assign(session, { step: 2 }));
        await connect.set(sid, Object.assign(session, { step: 1 }));
        assert.equal((await connect.get(sid)).step, 1);
        // With a copy, which has its own mark.
        await connect.set(sid, { ...session, step: 3 });
        await connect.set(sid, session);
        assert.equal((await connect.get(sid)).step, 1);
        // While the first is pending.
        const calls = [
          connect.set(sid, Object.assign(session, { step: 4 })),
          connect.set(sid, Object.assign(session, { step: 1 })),
        ];
        await Promise.all(calls);
        assert.equal((await connect.get(sid)).step, 1);
      });

      it("is not compared to a session that another set of the same request is replacing", async () => {
        const { connect, sid, session } = await load();
        const { update } = inner;
        let open;
        const opened = new Promise((resolve) => {
          open = resolve;
        });
        let updates = 0;
        inner.update = async (...args) => {
          if (++updates === 2) await opened;
          return update.apply(inner, args);
        };
        const first = connect.set(sid, Object.assign(session, { step: 2 }));
        const second = connect.set(sid, Object.assign(session, { step: 3 }));
        await first;
        const third = connect.set(sid, Object.assign(session, { step: 2 }));
        open();
        await Promise.all([second, third]);
        assert.equal(updates, 3);
      });

      it("stores only the cookie if that was changed", async () => {
        for (const options of [{}, { touchAfter: MINUTE }]) {
          const { connect, sid, session } = await load({}, options);
          await saveElsewhere(sid, { step: 2 });
          await connect.set(sid, Object.assign(session, { cookie: lasting(30 * DAY, { path: "/p" }) }));
          const { step, cookie } = await connect.get(sid);
          assert.deepEqual([step, cookie.path, cookie.originalMaxAge], [2, "/p", 30 * DAY]);
        }
      });

      it("stores a user that userId did not return before", async () => {
        const { sid } = await load({ user: "ada" });
        const connect = other({ userId: ({ user }) => user });
        await connect.set(sid, await connect.get(sid));
        assert.deepEqual(await sidsOf(connect, "ada"), [sid]);
        await store.set(sid, await store.get(sid));
        assert.deepEqual(await sidsOf(connect, "ada"), []);
      });

      it("does not read the session with touchAfter, and neither does a set of a changed session", async () => {
        const { connect, sid, session } = await load({}, { touchAfter: MINUTE });
        const { hits, misses } = await inner.stats();
        await connect.set(sid, session);
        await connect.set(sid, renewed(session, 2 * HOUR));
        await connect.set(sid, Object.assign(session, { step: 2 }));
        const after = await inner.stats();
        assert.deepEqual([after.hits, after.misses], [hits, misses]);
        assert.equal((await connect.get(sid)).step, 2);
      });

      it("does not bring back a session, and reports no error", async () => {
        const { connect, sid, session } = await load();
        await other().destroy(sid);
        await connect.set(sid, renewed(session, 2 * HOUR));
        assert.equal(await connect.get(sid), null);
        assert.equal(await inner.size(), 0);
      });

      it("writes a change that looks like an expiry or the end of a cookie", async () => {
        const until = inFuture(HOUR).toISOString();
        const { connect, sid, session } = await load({
          until,
          cookie: lasting(HOUR, { expires: until, path: '/"}' }),
        });
        const later = inFuture(2 * HOUR).toISOString();
        session.cookie.expires = later;
        session.until = later;
        await connect.set(sid, session);
        assert.equal((await connect.get(sid)).until, later);
        session.step = 2;
        await connect.set(sid, session);
        assert.equal((await connect.get(sid)).step, 2);
      });
    });

    describe("an expiry that is earlier than the loaded one", () => {
      const loads = {
        get: (connect, sid) => connect.get(sid),
        all: async (connect, sid) => (await connect.all())[sid],
        getByUser: async (connect, sid) =>
          (await connect.getByUser("ada")).find((one) => one.sid === sid).session,
      };

      for (const load of Object.keys(loads)) {
        for (const write of ["touch", "set"]) {
          for (const touchAfter of [0, 1000, DAY]) {
            it(`ends the session then: ${load}, ${write}, touchAfter ${touchAfter}`, async () => {
              const connect = other({ touchAfter, userId: (session) => session.user });
              const sid = newId();
              await connect.set(sid, { cookie: lasting(), user: "ada" });
              const session = await loads[load](connect, sid);
              const end = new Date(Date.parse(session.cookie.expires) - 100);
              session.cookie.expires = end;
              await connect[write](sid, session);
              assert.equal(await endOf(sid), end.getTime());
              assert.equal((await connect.get(sid)).cookie.expires, end.toISOString());
              // The same object again, with an even earlier end.
              session.cookie.expires = inFuture(MINUTE);
              await connect[write](sid, session);
              assert.equal(await endOf(sid), session.cookie.expires.getTime());
            });
          }
        }
      }

      it("ends a framework's session whose maxAge was shortened by less than a second", async () => {
        const sid = newId();
        const shorter = HOUR - 900;
        await store.set(sid, { cookie: lasting(HOUR) });
        const held = new FrameworkSession(await store.get(sid));
        Object.assign(held.cookie, lasting(shorter));
        await store.touch(sid, held);
        assert.equal(await endOf(sid), held.cookie.expires.getTime());
        assert.equal((await store.get(sid)).cookie.originalMaxAge, shorter);
        // That request renews the shorter lifetime.
        Object.assign(held.cookie, lasting(shorter));
        await store.touch(sid, held);
        assert.equal(await endOf(sid), held.cookie.expires.getTime());
      });

      it("ends a framework's session that carries the expiry it was loaded with", async () => {
        for (const originalMaxAge of [HOUR, null]) {
          const sid = newId();
          await store.set(sid, { cookie: lasting(HOUR, { originalMaxAge }) });
          const { cookie } = asJson(await store.get(sid));
          const expires = inFuture(MINUTE);
          const held = new FrameworkSession(
            { cookie: { ...cookie, originalExpires: new Date(cookie.expires), expires } },
            { isModified: false },
          );
          await store.set(sid, held);
          assert.equal(await endOf(sid), held.cookie.expires.getTime());
        }
      });
    });

    describe("destroy", () => {
      it("ends a session, and accepts an absent one", async () => {
        const sid = newId();
        await store.set(sid, { cookie: lasting() });
        assert.equal(await store.destroy(sid), undefined);
        assert.equal(await store.get(sid), null);
        assert.equal(await store.destroy(sid), undefined);
        assert.deepEqual(await callingBack((done) => store.destroy("nobody", done)), [null, undefined]);
      });
    });

    describe("a session that has ended does not come back", () => {
      const ways = {
        destroy: (sid) => store.destroy(sid),
        "destroy by another process": (sid) => other().destroy(sid),
        clear: () => store.clear(),
        destroyByUser: () => other({ userId: (session) => session.user }).destroyByUser("ada"),
        "the store's delete": (sid) => inner.delete(sid),
        "the store's deleteByUser": () => inner.deleteByUser("ada"),
        expiry: (sid) => inner.touch(sid, Date.now() - 1),
      };
      const owned = { userId: (session) => session.user };
      const hasEnded = failsWith("ERR_SESSION_ENDED", /ended within the last hour/);

      for (const [way, end] of Object.entries(ways)) {
        it(`after ${way}`, async () => {
          store = other(owned);
          const sid = newId();
          await store.set(sid, { cookie: lasting(), user: "ada" });
          const [held, touched] = [await store.get(sid), await store.get(sid)];
          await end(sid);
          await store.touch(sid, renewed(touched, DAY));
          assert.equal(await store.get(sid), null, "a touch of the object that was loaded");
          await store.set(sid, held);
          assert.equal(await store.get(sid), null, "the object that was loaded");
          await store.set(sid, Object.assign({ ...held }, { changed: true }));
          assert.equal(await store.get(sid), null, "a shallow copy of it");
          await store.touch(sid, held);
          assert.equal(await store.get(sid), null, "touch");
          if (way !== "clear") {
            const copy = { ...asJson(held), cookie: lasting() };
            await assert.rejects(store.set(sid, copy), hasEnded);
            assert.equal(await store.get(sid), null, "what may be a deep copy of it");
          }
          assert.equal(await store.length(), 0);
        });
      }

      it("through the store that created it and did not load it", async () => {
        const sid = newId();
        const held = { cookie: lasting() };
        await store.set(sid, held);
        await other().destroy(sid);
        await assert.rejects(store.set(sid, held), hasEnded);
        await assert.rejects(store.set(sid, { ...held }), hasEnded);
        await assert.rejects(store.set(sid, held), hasEnded);
        assert.equal(await store.get(sid), null);
      });

      it("through the store that only ended it", async () => {
        const sid = newId();
        await other().set(sid, { cookie: lasting() });
        await store.destroy(sid);
        await assert.rejects(store.set(sid, { cookie: lasting() }), hasEnded);
        assert.equal(await store.get(sid), null);
      });

      it("while it is being ended", async () => {
        for (let round = 0; round < 20; round++) {
          const sid = newId();
          await store.set(sid, { cookie: lasting() });
          const held = await store.get(sid);
          await Promise.all([
            store.set(sid, held),
            other().destroy(sid),
            store.touch(sid, held),
            store.set(sid, held),
          ]);
          assert.equal(await store.get(sid), null);
        }
      });

      it("with touchAfter", async () => {
        const connect = other({ touchAfter: MINUTE });
        const sid = newId();
        await connect.set(sid, { cookie: lasting() });
        const held = await connect.get(sid);
        await other().destroy(sid);
        await connect.set(sid, held);
        await connect.set(sid, { ...held, changed: true });
        await connect.touch(sid, held);
        assert.equal(await connect.get(sid), null);
      });

      it("through the object that created it, however late", async (t) => {
        const sid = newId();
        const held = { cookie: lasting() };
        await store.set(sid, held);
        await other().destroy(sid);
        later(t, 3 * HOUR);
        await assert.rejects(store.set(sid, held), hasEnded);
        assert.equal(await store.get(sid), null);
      });

      it("through a loaded object, however late", async (t) => {
        const sid = newId();
        await other().set(sid, { cookie: lasting() });
        const held = await store.get(sid);
        await other().destroy(sid);
        later(t, 3 * HOUR);
        await store.set(sid, held);
        assert.equal(await store.get(sid), null);
      });

      it("and no error reports that it was dropped", async () => {
        const sid = newId();
        await store.set(sid, { cookie: lasting() });
        const held = await store.get(sid);
        await store.destroy(sid);
        assert.deepEqual(await callingBack((done) => store.set(sid, held, done)), [null, undefined]);
        assert.deepEqual(await callingBack((done) => store.touch(sid, held, done)), [null, undefined]);
      });

      it("through a framework's session that was stored twice in one request", async () => {
        const sid = newId();
        const held = new FrameworkSession({ cookie: lasting() });
        await store.set(sid, held);
        await other().destroy(sid);
        await store.set(sid, held);
        assert.equal(await store.get(sid), null);
      });

      it("through a framework whose sessions do not carry a mark", async () => {
        const sid = newId();
        await store.set(sid, { cookie: lasting() });
        const loaded = await new Promise((resolve) => {
          store.get(sid, (_error, session) => resolve(new FrameworkSession(asJson(session))));
        });
        await other().destroy(sid);
        await assert.rejects(store.set(sid, loaded), hasEnded);
        assert.equal(await store.get(sid), null);
      });

      it("while others come and go", async () => {
        const ended = newId();
        await store.set(ended, { cookie: lasting() });
        await store.destroy(ended);
        const sid = newId();
        await store.set(sid, { cookie: lasting(), a: 1 });
        assert.equal((await store.get(sid)).a, 1);
      });
    });

    describe("a reused id", () => {
      it("belongs to a new session after clear, also from the same object", async () => {
        for (const options of [{}, { prefix: "app:" }, { touchAfter: HOUR }]) {
          const connect = other(options);
          const fixture = { cookie: lasting(), user: "ada" };
          for (let round = 0; round < 3; round++) {
            await connect.clear();
            assert.equal(await connect.get("test-sid"), null);
            await connect.set("test-sid", fixture);
            assert.equal((await connect.get("test-sid")).user, "ada");
            await connect.clear();
            await connect.set("test-sid", { cookie: lasting(), user: "grace" });
            assert.equal((await connect.get("test-sid")).user, "grace");
          }
        }
      });

      it("belongs to a new session in the callback of destroy, as when a framework regenerates it", async () => {
        const sid = newId();
        await store.set(sid, { cookie: lasting(), user: "ada" });
        const held = new FrameworkSession(await store.get(sid));
        await new Promise((resolve) => {
          store.destroy(sid, () => store.set(sid, new FrameworkSession({ ...held, user: "grace" }), resolve));
        });
        assert.equal((await store.get(sid)).user, "grace");
      });

      it("belongs to a new session in another ConnectStore", async () => {
        const sid = newId();
        await store.set(sid, { cookie: lasting() });
        await store.destroy(sid);
        await other().set(sid, { cookie: lasting(), user: "ada" });
        assert.equal((await store.get(sid)).user, "ada");
      });
    });

    describe("an id that no session can have", () => {
      const long = "x".repeat(257);

      it("is an absent session for get, touch and destroy", async () => {
        const shop = other({ prefix: "shop:" });
        for (const [connect, sid] of [
          [store, long],
          [store, "\u00e9".repeat(129)],
          [store, "\ud800"],
          [shop, "x".repeat(252)],
        ]) {
          assert.equal(await connect.get(sid), null);
          assert.equal(await connect.touch(sid, { cookie: lasting() }), undefined);
          assert.equal(await connect.destroy(sid), undefined);
          assert.deepEqual(await callingBack((done) => connect.get(sid, done)), [null, null]);
        }
      });

      it("is refused by set", async () => {
        await assert.rejects(
          store.set(long, { cookie: lasting() }),
          failsWith("ERR_INVALID_SESSION", /sessionId/),
        );
        await assert.rejects(
          other({ prefix: "shop:" }).set("x".repeat(252), { cookie: lasting() }),
          failsWith("ERR_INVALID_SESSION", /sessionId/),
        );
        const longest = "x".repeat(251);
        await other({ prefix: "shop:" }).set(longest, { cookie: lasting() });
        assert.notEqual(await other({ prefix: "shop:" }).get(longest), null);
      });
    });

    describe("all, ids, length and clear", () => {
      it("cover the live sessions", async () => {
        assert.deepEqual(await store.ids(), []);
        assert.equal(await store.length(), 0);
        assert.deepEqual(Object.keys(await store.all()), []);
        for (const sid of ["a", "b", "c"]) await store.set(sid, { cookie: lasting(), sid });
        await store.set("b", { cookie: lasting(-1) });
        assert.deepEqual((await store.ids()).sort(), ["a", "c"]);
        assert.equal(await store.length(), 2);
        const all = await store.all();
        assert.equal(all.a.sid, "a");
        assert.deepEqual(Object.keys(all).sort(), ["a", "c"]);
        assert.equal(await store.clear(), undefined);
        assert.equal(await store.length(), 0);
        assert.equal(await store.get("a"), null);
      });

      it("ignore other records in the same store", async () => {
        await inner.create({ sessionId: "fluid", userId: "ann", expires: inFuture(HOUR).toISOString() });
        assert.equal(await store.get("fluid"), null);
        assert.deepEqual(Object.keys(await store.all()), []);
        await store.touch("fluid", { cookie: lasting() });
        assert.equal((await inner.get("fluid")).userId, "ann");
      });

      it("cover only the ids with the prefix", async () => {
        const [shop, blog] = [other({ prefix: "shop:" }), other({ prefix: "blog:" })];
        for (let n = 0; n < 600; n++) await shop.set(`${n}`, { cookie: lasting(), of: "shop" });
        await blog.set("1", { cookie: lasting(), of: "blog" });
        assert.equal((await shop.get("1")).of, "shop");
        assert.equal((await inner.get("blog:1")).session.of, "blog");
        assert.equal(await shop.length(), 600);
        assert.deepEqual(await blog.ids(), ["1"]);
        assert.deepEqual(Object.keys(await blog.all()), ["1"]);
        await shop.clear();
        assert.equal(await shop.length(), 0);
        assert.equal((await blog.get("1")).of, "blog");
      });
    });

    describe("sessions()", () => connectSessions(other, createStore, ConnectStore, failsWith));

    describe("the users", () => {
      const byUser = { userId: (session) => session.passport?.user };
      const login = (user) => ({ cookie: lasting(), passport: { user } });

      it("are the results of userId", async () => {
        store = other(byUser);
        await store.set("a", login("ada"));
        await store.set("b", login("ada"));
        await store.set("c", login(42));
        await store.set("d", { cookie: lasting() });
        assert.deepEqual(await sidsOf(store, "ada"), ["a", "b"]);
        assert.deepEqual((await store.getByUser("ada"))[0].session.passport, { user: "ada" });
        assert.deepEqual(await sidsOf(store, 42), ["c"]);
        assert.deepEqual(await sidsOf(store, "42"), []);
        assert.equal(await store.destroyByUser("ada", { except: "b" }), 1);
        assert.deepEqual((await store.ids()).sort(), ["b", "c", "d"]);
        assert.equal(await store.destroyByUser("ada"), 1);
        assert.equal(await store.destroyByUser("ada"), 0);
      });

      it("get the expiry of their sessions, even if a cookie has none", async () => {
        store = other({ ...byUser, ttl: HOUR });
        await store.set("a", { ...login("ada"), cookie: passing() });
        const [{ sid, expires, session }] = await store.getByUser("ada");
        assert.deepEqual([sid, session.cookie.expires], ["a", null]);
        assert.ok(expires instanceof Date);
        assert.equal(expires.getTime(), await endOf("a"));
      });

      it("come and go with login and logout of a session", async () => {
        store = other(byUser);
        const sid = newId();
        await store.set(sid, { cookie: lasting() });
        await store.set(sid, login("ada"));
        assert.deepEqual(await sidsOf(store, "ada"), [sid]);
        await store.touch(sid, { cookie: lasting(HOUR, { path: "/p" }) });
        assert.deepEqual(await sidsOf(store, "ada"), [sid]);
        await store.set(sid, { cookie: lasting() });
        assert.deepEqual(await sidsOf(store, "ada"), []);
      });

      it("are separate for each prefix", async () => {
        const [shop, blog] = ["shop:", "blog:"].map((prefix) => other({ ...byUser, prefix }));
        for (const connect of [shop, blog]) {
          for (const sid of ["a", "b", "c"]) await connect.set(sid, login("ada"));
        }
        assert.deepEqual(await sidsOf(shop, "ada"), ["a", "b", "c"]);
        assert.equal(await shop.destroyByUser("ada", { except: "b" }), 2);
        assert.deepEqual(await shop.ids(), ["b"]);
        assert.equal(await blog.length(), 3);
      });

      it("must be valid values, and the session to keep a valid id", async () => {
        store = other(byUser);
        await assert.rejects(store.destroyByUser(null), failsWith("ERR_INVALID_SESSION", /userId/));
        await assert.rejects(store.getByUser(undefined), failsWith("ERR_INVALID_SESSION", /userId/));
        for (const except of [null, "", 7]) {
          await assert.rejects(
            store.destroyByUser("ada", { except }),
            failsWith("ERR_INVALID_OPTION", /^except must be the id of the session to keep/),
          );
        }
        await assert.rejects(
          store.destroyByUser("ada", { exept: "x" }),
          failsWith("ERR_INVALID_OPTION", /did you mean except/),
        );
      });
    });

    describe("callbacks", () => {
      it("receive the value of the promise, and the call returns no promise", async () => {
        const store = other({ userId: (session) => session.user });
        const session = { cookie: lasting(), a: 1 };
        const calls = [
          [(done) => store.set("sid", session, done), undefined],
          [(done) => store.get("sid", done), asJson(session)],
          [(done) => store.touch("sid", session, done), undefined],
          [(done) => store.ids(done), ["sid"]],
          [(done) => store.length(done), 1],
          [(done) => store.getByUser("nobody", done), []],
          [(done) => store.destroyByUser("nobody", done), 0],
          [(done) => store.destroyByUser("nobody", { except: "sid" }, done), 0],
          [(done) => store.destroyByUser("nobody", undefined, done), 0],
          [(done) => store.destroy("sid", done), undefined],
          [(done) => store.all(done), Object.create(null)],
          [(done) => store.clear(done), undefined],
        ];
        for (const [call, expected] of calls) {
          const [error, value] = await callingBack(call);
          assert.equal(error, null);
          assert.deepEqual(value, expected);
        }
      });

      it("come after the call has returned", async () => {
        let isBack = false;
        const called = new Promise((resolve) => {
          store.get("nobody", () => resolve(isBack));
        });
        isBack = true;
        assert.equal(await called, true);
      });

      it("receive the store's errors", async () => {
        const store = other({ userId: (session) => session.user });
        await inner.close();
        const calls = [
          (done) => store.get("a", done),
          (done) => store.set("a", { cookie: lasting() }, done),
          (done) => store.touch("a", { cookie: lasting() }, done),
          (done) => store.destroy("a", done),
          (done) => store.all(done),
          (done) => store.ids(done),
          (done) => store.length(done),
          (done) => store.clear(done),
          (done) => store.getByUser("a", done),
          (done) => store.destroyByUser("a", done),
        ];
        for (const call of calls) failsWith("ERR_STORE_CLOSED", /closed/)((await callingBack(call))[0]);
      });

      it("may be left out as undefined", async () => {
        await store.set("a", { cookie: lasting() }, undefined);
        await store.destroy("a", undefined);
        assert.equal(await store.get("a", undefined), null);
      });
    });

    describe("bad input", () => {
      it("is refused with the name of the field, and nothing is stored", async () => {
        for (const sid of [undefined, null, "", 7, {}]) {
          const refused = failsWith("ERR_INVALID_SESSION", /sessionId/);
          await assert.rejects(store.get(sid), refused);
          await assert.rejects(store.set(sid, { cookie: lasting() }), refused);
          await assert.rejects(store.touch(sid, { cookie: lasting() }), refused);
          await assert.rejects(store.destroy(sid), refused);
        }
        for (const session of [undefined, null, 7, "text"]) {
          await assert.rejects(
            store.set("a", session),
            failsWith("ERR_INVALID_SESSION", /session must be an object/),
          );
          await assert.rejects(
            store.touch("a", session),
            failsWith("ERR_INVALID_SESSION", /session must be an object/),
          );
        }
        await assert.rejects(
          store.set("a".repeat(300), { cookie: lasting() }),
          failsWith("ERR_INVALID_SESSION", /sessionId/),
        );
        await assert.rejects(
          store.set("a", { cookie: lasting(), n: 1n }),
          failsWith("ERR_INVALID_SESSION", /JSON/),
        );
        await assert.rejects(
          store.set("a", { text: "x".repeat(2 ** 21) }),
          failsWith("ERR_SESSION_TOO_LARGE", /maxSessionBytes/),
        );
        assert.equal(await store.length(), 0);
      });

      it("can be corrected and set again", async () => {
        const session = { cookie: lasting(), n: 1n };
        await assert.rejects(store.set("a", session));
        session.n = 1;
        await store.set("a", session);
        assert.equal((await store.get("a")).n, 1);
      });

      it("from ttl and userId is refused with their name", async () => {
        for (const ttl of [undefined, null, 0, -1, Number.NaN, Number.POSITIVE_INFINITY, "1"]) {
          const connect = other({ ttl: () => ttl });
          await assert.rejects(
            connect.set("a", { cookie: passing() }),
            failsWith("ERR_INVALID_OPTION", /ttl must return/),
          );
        }
        const late = other({ userId: async () => "ada" });
        await assert.rejects(
          late.set("a", { cookie: lasting() }),
          failsWith("ERR_INVALID_OPTION", /userId must return.*promise/),
        );
        const thrown = new Error("no user");
        const throwing = other({
          userId: () => {
            throw thrown;
          },
        });
        await assert.rejects(throwing.set("a", { cookie: lasting() }), (error) => error === thrown);
        assert.equal(await store.length(), 0);
      });
    });

    it("closes its store, once", async () => {
      await store.close();
      await store.close();
      await assert.rejects(inner.get("a"), failsWith("ERR_STORE_CLOSED", /closed/));
      await store[Symbol.asyncDispose ?? Symbol.for("nodejs.asyncDispose")]();
    });
  });
}

module.exports = { connectConformance };
