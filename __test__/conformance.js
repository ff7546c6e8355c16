"use strict";

// The contract of every store as tests. `conformance("MemoryStore", createStore, errors)` registers them.
//
// No clock is injected here. A session with a past `expires` is expired from the start, and `touch` into the past
// expires a live one, so no test has to wait.

const assert = require("node:assert/strict");
const { describe, it, beforeEach, afterEach } = require("node:test");
const { sessionsConformance } = require("./sessions-conformance.js");
const { badCalls, badSessions, longIds } = require("./support/bad-input.js");
const { hostileSessions } = require("./support/hostile.js");

const HOUR = 3_600_000;
const at = (millis) => new Date(Date.now() + millis).toISOString();

let made = 0;
const newId = () => `${(++made).toString(16).padStart(36, "0")}`;

/** A session of FluidAuth's shape that lives for an hour. */
const session = (fields) => ({ sessionId: newId(), expires: at(HOUR), userId: "ann", ...fields });

const asJson = (value) => JSON.parse(JSON.stringify(value));

async function idsOf(store) {
  const ids = [];
  for await (const id of store.ids()) ids.push(id);
  return ids.sort();
}

/**
 * @param {string} name of the store
 * @param {(options?: object, Store?: Function) => Promise<object>} createStore returns an empty store with these
 * options, of the class `Store` if it is given
 * @param {{ SessionStoreError: Function }} errors of the package under test
 * @param {{ isRemote?: boolean, isApart?: boolean, ownStats?: string[] }} kind `isRemote`: a server holds and expires
 * the sessions. `isApart`: the sessions of a user are on several servers. `ownStats`: fields of `stats()` that only
 * this store has.
 */
function conformance(
  name,
  createStore,
  { SessionStoreError },
  { isRemote = false, isApart = false, ownStats = [] } = {},
) {
  const failsWith = (code, words) => (error) => {
    assert.ok(error instanceof SessionStoreError, `not a SessionStoreError: ${error?.stack}`);
    assert.equal(error.code, code);
    if (words !== undefined) assert.match(error.message, words);
    return true;
  };

  describe(`${name} keeps the contract:`, () => {
    let store;
    beforeEach(async () => {
      store = await createStore();
    });
    afterEach(() => store.close());

    describe("a call sees all earlier calls:", () => {
      const given = () => session({ userId: "rhea", cart: [1] });

      it("get sees create, update, touch and delete", async () => {
        const first = given();
        const created = store.create(first);
        assert.deepEqual(await store.get(first.sessionId), first);
        const updated = store.update(first.sessionId, { ...first, cart: [1, 2] });
        assert.deepEqual((await store.get(first.sessionId)).cart, [1, 2]);
        const touched = store.touch(first.sessionId, at(2 * HOUR));
        assert.ok(new Date((await store.get(first.sessionId)).expires) > new Date(first.expires));
        const deleted = store.delete(first.sessionId);
        assert.equal(await store.get(first.sessionId), null);
        await Promise.all([created, updated, touched, deleted]);
      });

      it("create, update and touch see delete", async () => {
        const first = given();
        await store.create(first);
        const deleted = store.delete(first.sessionId);
        assert.equal(await store.touch(first.sessionId, at(HOUR)), false);
        await store.update(first.sessionId, first);
        assert.equal(await store.get(first.sessionId), null);
        await store.create(first);
        assert.deepEqual(await store.get(first.sessionId), first);
        await deleted;
      });

      if (isRemote) return;

      it("get sees deleteByUser, but for the session that it keeps and for those of others", async () => {
        const [ended, kept] = [given(), given()];
        const other = session({ userId: "ben" });
        for (const one of [ended, kept, other]) await store.create(one);
        const deleted = store.deleteByUser("rhea", { except: kept.sessionId });
        assert.equal(await store.get(ended.sessionId), null);
        assert.deepEqual(await store.get(kept.sessionId), kept);
        assert.deepEqual(await store.get(other.sessionId), other);
        assert.equal(await deleted, 1);
      });

      it("get sees clear", async () => {
        const first = given();
        await store.create(first);
        const cleared = store.clear();
        assert.equal(await store.get(first.sessionId), null);
        await cleared;
      });

      it("getByUser and deleteByUser see create, update and delete", async () => {
        const [first, second] = [given(), given()];
        const calls = [store.create(first), store.create(second)];
        assert.deepEqual(await store.getByUser("rhea"), [first, second]);
        calls.push(store.update(first.sessionId, { ...first, userId: "ben" }));
        assert.deepEqual(await store.getByUser("rhea"), [second]);
        calls.push(store.delete(second.sessionId));
        assert.deepEqual(await store.getByUser("rhea"), []);
        calls.push(store.update(first.sessionId, first));
        assert.equal(await store.deleteByUser("rhea"), 1);
        await Promise.all(calls);
      });
    });

    describe("create and get", () => {
      it("return the stored session", async () => {
        const given = session();
        assert.equal(await store.create(given), undefined);
        assert.deepEqual(await store.get(given.sessionId), given);
      });

      it("return null for an absent session", async () => {
        assert.equal(await store.get("nobody"), null);
      });

      for (const [what, id] of longIds) {
        it(`find nothing for an id of ${what}, which a cookie may hold`, async () => {
          assert.equal(await store.get(id), null);
          assert.equal(await store.touch(id, at(HOUR)), false);
          assert.equal(await store.delete(id), undefined);
        });
      }

      it("keep the order of the fields", async () => {
        for (const order of [
          ["sessionId", "expires", "userId"],
          ["sessionId", "userId", "expires"],
          ["userId", "sessionId", "expires"],
          ["expires", "b", "sessionId", "a", "userId"],
        ]) {
          const fields = session({ a: 1, b: 2 });
          const given = Object.fromEntries(order.map((field) => [field, fields[field]]));
          await store.create(given);
          assert.equal(JSON.stringify(await store.get(given.sessionId)), JSON.stringify(given));
        }
      });

      for (const [what, hostile] of hostileSessions) {
        it(`keep ${what} as JSON does`, async () => {
          const given = hostile({ sessionId: newId(), expires: at(HOUR) });
          await store.create(given);
          assert.deepEqual(await store.get(asJson(given).sessionId), asJson(given));
        });
      }

      it("return a fresh copy each time", async () => {
        for (const given of [session(), session({ cart: { items: [1] } })]) {
          await store.create(given);
          const first = await store.get(given.sessionId);
          first.userId = "mallory";
          if (first.cart) first.cart.items.push(2);
          assert.deepEqual(await store.get(given.sessionId), given);
        }
      });

      it("do not follow later changes of the passed object", async () => {
        const given = session({ cart: [1] });
        await store.create(given);
        given.cart.push(2);
        assert.deepEqual((await store.get(given.sessionId)).cart, [1]);
      });

      it("refuse the id of a live session, and keep that session", async () => {
        const first = session();
        await store.create(first);
        await assert.rejects(
          store.create({ ...first, userId: "ben" }),
          failsWith("ERR_SESSION_EXISTS", /sessionId/),
        );
        assert.deepEqual(await store.get(first.sessionId), first);
        assert.deepEqual(await store.getByUser("ben"), []);
      });

      it("take the id of an expired session", async () => {
        const old = session({ expires: at(-1) });
        await store.create(old);
        const next = { ...old, expires: at(HOUR), userId: "ben" };
        await store.create(next);
        assert.deepEqual(await store.get(old.sessionId), next);
        assert.deepEqual(await store.getByUser("ann"), []);
      });

      it("let one of two concurrent creations win", async () => {
        const twins = [session(), session()];
        twins[1].sessionId = twins[0].sessionId;
        const results = await Promise.allSettled(twins.map((twin) => store.create(twin)));
        assert.deepEqual(results.map((result) => result.status).sort(), ["fulfilled", "rejected"]);
      });

      it("compare ids exactly", async () => {
        const ids = ["A", "a", "aa", "AA", "é", "e\u0301", "a\0", "a\0b", "../a", "😀", " a", "__proto__"];
        for (const sessionId of ids)
          await store.create(session({ sessionId, userId: `user of ${sessionId}` }));
        for (const sessionId of ids) {
          assert.equal((await store.get(sessionId)).userId, `user of ${sessionId}`);
        }
      });

      it("take ids of up to 256 bytes", async () => {
        for (const sessionId of ["x", "x".repeat(256), "0".repeat(256), "é".repeat(128), "😀".repeat(64)]) {
          await store.create(session({ sessionId }));
          assert.equal((await store.get(sessionId)).sessionId, sessionId);
        }
      });

      it("treat an expired session as absent", async () => {
        const old = session({ expires: at(-1) });
        await store.create(old);
        assert.equal(await store.get(old.sessionId), null);
        assert.equal(await store.size(), 0);
      });
    });

    describe("expires", () => {
      const future = Date.now() + HOUR;
      for (const [what, expires] of [
        ["a Date", new Date(future)],
        ["a number", future],
        ["a number with a fraction", future + 0.5],
        ["a text of another form", new Date(future).toUTCString()],
        ["a day alone", "2199-12-31"],
        ["a text with an offset", "2199-12-31T00:00:00+02:00"],
        ["a year beyond 9999", "+010000-01-01T00:00:00.000Z"],
        ["the last date there is", new Date(8.64e15)],
      ]) {
        it(`may be ${what}, and comes back as JSON has it`, async () => {
          const given = session({ expires });
          await store.create(given);
          assert.deepEqual(await store.get(given.sessionId), asJson(given));
          await store.update(given.sessionId, given);
          assert.deepEqual(await store.get(given.sessionId), asJson(given));
        });
      }

      it("may be past in any form", async () => {
        for (const expires of [
          new Date(0),
          -5,
          "Thu, 01 Jan 1970 00:00:00 GMT",
          "-000001-01-01T00:00:00.000Z",
        ]) {
          const given = session({ expires });
          await store.create(given);
          assert.equal(await store.get(given.sessionId), null);
        }
      });

      it("ends a session when its time comes", async () => {
        const given = session({ expires: at(30) });
        await store.create(given);
        while ((await store.get(given.sessionId)) !== null) await new Promise(setImmediate);
        assert.ok(Date.now() >= Date.parse(given.expires));
      });
    });

    describe("update", () => {
      it("replaces a live session", async () => {
        const given = session();
        await store.create(given);
        const next = { ...given, expires: at(2 * HOUR), userId: 7, cart: ["x"] };
        assert.equal(await store.update(given.sessionId, next), undefined);
        assert.deepEqual(await store.get(given.sessionId), next);
        assert.equal(await store.size(), 1);
      });

      it("never creates", async () => {
        const given = session();
        await store.update(given.sessionId, given);
        assert.equal(await store.get(given.sessionId), null);
      });

      it("does not bring back a session that was logged out or has expired", async () => {
        const [out, old] = [session(), session({ expires: at(-1) })];
        await store.create(out);
        await store.create(old);
        await store.delete(out.sessionId);
        for (const { sessionId } of [out, old]) {
          await store.update(sessionId, session({ sessionId }));
          assert.equal(await store.get(sessionId), null);
        }
      });

      it("refuses a session with another id, and changes nothing", async () => {
        const [one, other] = [session(), session({ extra: true })];
        await store.create(one);
        for (const wrong of [session(), other]) {
          await assert.rejects(
            store.update(one.sessionId, wrong),
            failsWith("ERR_INVALID_SESSION", /sessionId/),
          );
          assert.deepEqual(await store.get(one.sessionId), one);
          assert.equal(await store.get(wrong.sessionId), null);
        }
      });

      it("moves the session to another user", async () => {
        const given = session();
        await store.create(given);
        await store.update(given.sessionId, { ...given, userId: "ben" });
        assert.deepEqual(await store.getByUser("ann"), []);
        assert.equal((await store.getByUser("ben")).length, 1);
      });

      it("with an expiry in the past ends the session", async () => {
        const given = session();
        await store.create(given);
        await store.update(given.sessionId, { ...given, expires: at(-1) });
        assert.equal(await store.get(given.sessionId), null);
      });
    });

    describe("touch", () => {
      it("only moves the expiry", async () => {
        for (const given of [session(), session({ cart: [{ id: 1 }] }), session({ userId: { id: 1 } })]) {
          await store.create(given);
          const expires = at(2 * HOUR);
          assert.equal(await store.touch(given.sessionId, expires), true);
          assert.deepEqual(await store.get(given.sessionId), { ...given, expires });
          assert.deepEqual(await store.getByUser(given.userId), [{ ...given, expires }]);
          await store.delete(given.sessionId);
        }
      });

      it("takes any valid date, and keeps the type of expires", async () => {
        const [text, number] = [session(), session({ expires: Date.now() + HOUR })];
        await store.create(text);
        await store.create(number);
        const end = Date.now() + 2 * HOUR;
        for (const expires of [end, new Date(end), new Date(end).toISOString()]) {
          await store.touch(text.sessionId, expires);
          await store.touch(number.sessionId, expires);
          assert.equal((await store.get(text.sessionId)).expires, new Date(end).toISOString());
          assert.equal((await store.get(number.sessionId)).expires, end);
        }
        await store.touch(text.sessionId, new Date(8.64e15));
        assert.deepEqual(await store.get(text.sessionId), {
          ...text,
          expires: "+275760-09-13T00:00:00.000Z",
        });
      });

      it("returns whether the session was live, and does nothing if it was not", async () => {
        const old = session({ expires: at(-1) });
        await store.create(old);
        assert.equal(await store.touch(old.sessionId, at(HOUR)), false);
        assert.equal(await store.touch("nobody", at(HOUR)), false);
        assert.equal(await store.get(old.sessionId), null);
        assert.equal(await store.size(), 0);
      });

      it("into the past ends the session", async () => {
        const given = session();
        await store.create(given);
        assert.equal(await store.touch(given.sessionId, at(-1)), true);
        assert.equal(await store.get(given.sessionId), null);
      });

      it("is undone by an update", async () => {
        const given = session({ cart: [] });
        await store.create(given);
        await store.touch(given.sessionId, at(2 * HOUR));
        await store.update(given.sessionId, given);
        assert.deepEqual(await store.get(given.sessionId), given);
      });
    });

    describe("delete", () => {
      it("removes a session, and may be repeated", async () => {
        const given = session();
        await store.create(given);
        for (let round = 0; round < 2; round++) {
          assert.equal(await store.delete(given.sessionId), undefined);
          assert.equal(await store.get(given.sessionId), null);
        }
        assert.deepEqual(await store.getByUser("ann"), []);
      });

      const itIfLocal = isRemote ? () => {} : it;
      itIfLocal("of an absent or expired session resolves before anything else happens", async () => {
        const old = session({ expires: at(-1) });
        await store.create(old);
        const order = [];
        setImmediate(() => order.push("the event loop went on"));
        await store.delete(old.sessionId);
        await store.delete("nobody");
        order.push("deleted");
        assert.deepEqual(order, ["deleted"]);
      });
    });

    describe("clean", () => {
      it("removes only expired sessions", async () => {
        const live = session();
        await store.create(live);
        for (let at_ = 0; at_ < 100; at_++) await store.create(session({ expires: at(-at_) }));
        if (!isRemote) assert.equal((await store.stats()).sessions, 101);
        assert.equal(await store.clean(), undefined);
        const { sessions, expired, lastSweep } = await store.stats();
        assert.equal(sessions, isRemote ? undefined : 1);
        assert.ok(lastSweep.at instanceof Date && lastSweep.duration >= 0);
        if (!isRemote) assert.deepEqual([expired, lastSweep.removed], [100, 100]);
        assert.deepEqual(await idsOf(store), [live.sessionId]);
      });
    });

    describe("the user index", () => {
      it("finds a user's live sessions, oldest first", async () => {
        const mine = [session(), session({ cart: [] }), session()];
        for (const one of mine) await store.create(one);
        await store.create(session({ expires: at(-1) }));
        await store.create(session({ userId: "ben" }));
        await store.update(mine[0].sessionId, mine[0]);
        assert.deepEqual(await store.getByUser("ann"), mine);
        assert.deepEqual(await store.getByUser("nobody"), []);
      });

      it("distinguishes users by value and type", async () => {
        const users = [
          42,
          "42",
          4.2,
          true,
          "true",
          { id: 1 },
          { id: "1" },
          [1],
          [],
          {},
          "",
          "{}",
          "é",
          "\ud800",
        ];
        for (const userId of users) await store.create(session({ userId }));
        for (const userId of users) {
          const found = await store.getByUser(userId);
          assert.deepEqual(
            found.map((one) => one.userId),
            [userId],
          );
        }
      });

      it("finds an object by equal content, in any order of its keys", async () => {
        await store.create(session({ userId: { realm: { b: 1, a: [2] }, id: 7 } }));
        assert.equal((await store.getByUser({ id: 7, realm: { a: [2], b: 1 } })).length, 1);
        assert.equal((await store.getByUser({ id: 7 })).length, 0);
      });

      it("finds a user by its JSON form", async () => {
        const objectId = { toJSON: () => "5f43" };
        await store.create(session({ userId: objectId }));
        assert.equal((await store.getByUser(objectId)).length, 1);
        assert.equal((await store.getByUser("5f43")).length, 1);
      });

      it("does not contain anonymous sessions", async () => {
        const { userId, ...absent } = session();
        await store.create(absent);
        await store.create(session({ userId: null }));
        assert.equal(await store.size(), 2);
        assert.deepEqual(await store.get(absent.sessionId), absent);
      });

      it("ends all sessions of a user, and returns how many", async () => {
        const ben = session({ userId: "ben" });
        await store.create(ben);
        for (let count = 0; count < 3; count++) await store.create(session());
        await store.create(session({ expires: at(-1) }));
        assert.equal(await store.deleteByUser("ann"), 3);
        assert.equal(await store.deleteByUser("ann"), 0);
        assert.deepEqual(await idsOf(store), [ben.sessionId]);
      });

      it("ends all but one", async () => {
        const mine = [session(), session(), session()];
        for (const one of mine) await store.create(one);
        assert.equal(await store.deleteByUser("ann", { except: mine[1].sessionId }), 2);
        assert.deepEqual(await store.getByUser("ann"), [mine[1]]);
        assert.equal(await store.deleteByUser("ann", { except: undefined }), 1);
      });
    });

    describe("sessions()", () => sessionsConformance(() => store, failsWith));

    describe("size, ids, clear and stats", () => {
      it("count, list and remove", async () => {
        const ids = [];
        for (let count = 0; count < 500; count++) {
          const one = session({ userId: `user ${count % 9}` });
          ids.push(one.sessionId);
          await store.create(one);
        }
        assert.equal(await store.size(), 500);
        assert.deepEqual(await idsOf(store), ids.sort());
        assert.equal(await store.clear(), undefined);
        assert.equal(await store.size(), 0);
        assert.deepEqual(await idsOf(store), []);
        assert.deepEqual(await store.getByUser("user 1"), []);
      });

      it("ids are yielded once while the store changes", async () => {
        const stay = new Set();
        for (let count = 0; count < 1000; count++) {
          const one = session();
          stay.add(one.sessionId);
          await store.create(one);
        }
        const seen = [];
        for await (const id of store.ids()) {
          if (stay.has(id)) seen.push(id);
          if (seen.length < 200) await store.create(session());
        }
        assert.deepEqual(seen.sort(), [...stay].sort());
      });

      it("ids may be left early", async () => {
        for (let count = 0; count < 10; count++) await store.create(session());
        for await (const id of store.ids()) {
          assert.equal(typeof id, "string");
          break;
        }
      });

      it("stats count calls and sessions", async () => {
        const one = session();
        await store.create(one);
        await store.get(one.sessionId);
        await store.get("nobody");
        await store.get("nobody");
        const stats = await store.stats();
        const { sessions, hits, misses, created, expired, evicted, lastSweep } = stats;
        assert.deepEqual(
          { sessions, hits, misses, created, expired, evicted, lastSweep },
          {
            sessions: isRemote ? undefined : 1,
            hits: 1,
            misses: 2,
            created: 1,
            expired: 0,
            evicted: 0,
            lastSweep: null,
          },
        );
        assert.ok(isRemote || stats.bytes > 0);
      });

      it("stats have the same keys from the start", async () => {
        const held = isRemote ? [] : ["sessions", "bytes"];
        const ofObject = ["state", "problem", "pending", "calls", "errors"];
        const counters = ["hits", "misses", "created", "expired", "evicted", "lastSweep", ...ofObject];
        const expected = [...held, ...counters, ...ownStats].sort();
        assert.deepEqual(Object.keys(await store.stats()).sort(), expected);
        await store.create(session());
        await store.clean();
        const stats = await store.stats();
        assert.deepEqual(Object.keys(stats).sort(), expected);
        assert.deepEqual(Object.keys(stats.lastSweep).sort(), ["at", "duration", "removed"]);
      });
    });

    describe("maxSessionsPerUser", () => {
      it("ends the user's oldest session", async () => {
        const limited = await createStore({ maxSessionsPerUser: 2 });
        const mine = [session(), session(), session()];
        for (const one of mine) await limited.create(one);
        await limited.create(session({ userId: "ben" }));
        assert.deepEqual(await limited.getByUser("ann"), mine.slice(1));
        assert.equal(await limited.size(), 3);
        assert.equal((await limited.stats()).evicted, 1);
        await limited.close();
      });
    });

    describe('maxSessionsPerUser with whenUserIsFull: "reject"', () => {
      const full = failsWith(
        "ERR_TOO_MANY_SESSIONS",
        /^the user already has 2 live sessions, which is maxSessionsPerUser \(whenUserIsFull is "reject"\): end one of them first$/,
      );
      let limited;
      let mine;
      beforeEach(async () => {
        limited = await createStore({ maxSessionsPerUser: 2, whenUserIsFull: "reject" });
        mine = [session(), session({ cart: [1] })];
        for (const one of mine) await limited.create(one);
      });
      afterEach(() => limited.close());

      it("refuses one more session of the user, in either form", async () => {
        await assert.rejects(limited.create(session()), full);
        await assert.rejects(limited.create(session({ cart: [2] })), full);
        await limited.create(session({ userId: "ben" }));
        await limited.create(session({ userId: null }));
        assert.deepEqual(await limited.getByUser("ann"), mine);
        assert.equal(await limited.size(), 4);
        const { created, evicted, errors } = await limited.stats();
        assert.deepEqual([created, evicted, errors.ERR_TOO_MANY_SESSIONS], [4, 0, 2]);
      });

      it("refuses the id of a live session with ERR_SESSION_EXISTS first", async () => {
        const taken = session({ userId: "ben" });
        await limited.create(taken);
        for (const { sessionId } of [taken, mine[0]]) {
          await assert.rejects(limited.create(session({ sessionId })), failsWith("ERR_SESSION_EXISTS"));
        }
        assert.deepEqual(await limited.getByUser("ann"), mine);
        assert.deepEqual(await limited.getByUser("ben"), [taken]);
        await limited.touch(taken.sessionId, at(-1));
        await assert.rejects(limited.create({ ...taken, userId: "ann" }), full);
      });

      it("accepts another session when one has ended or expired", async () => {
        await limited.delete(mine[0].sessionId);
        await limited.create(session());
        await limited.touch(mine[1].sessionId, at(-1));
        await limited.create(session());
        await assert.rejects(limited.create(session()), full);
      });

      it("allows updates of the user's sessions, but not of another session to the user", async () => {
        const changed = { ...mine[0], cart: [3] };
        await limited.update(changed.sessionId, changed);
        const visitor = session({ userId: null, cart: [4] });
        await limited.create(visitor);
        await assert.rejects(limited.update(visitor.sessionId, { ...visitor, userId: "ann" }), full);
        assert.deepEqual(await limited.get(visitor.sessionId), visitor);
        assert.deepEqual(await limited.getByUser("ann"), [changed, mine[1]]);
        await limited.deleteByUser("ann", { except: changed.sessionId });
        const given = { ...visitor, userId: "ann" };
        await limited.update(visitor.sessionId, given);
        assert.deepEqual(await limited.get(visitor.sessionId), given);
      });

      it("never exceeds the limit with concurrent logins", async () => {
        await limited.deleteByUser("ann");
        const logins = Array.from({ length: 20 }, () => limited.create(session()));
        const refused = (await Promise.allSettled(logins)).filter(({ status }) => status === "rejected");
        for (const { reason } of refused) full(reason);
        const held = (await limited.getByUser("ann")).length;
        assert.equal(held, logins.length - refused.length);
        assert.ok(isApart ? held <= 2 : held === 2, `${held} sessions`);
      });
    });

    describe("maxLifetime", () => {
      const LIFETIME = 600_000;
      // A creation has the server's time, which is known only to within a round trip.
      const INEXACT = isRemote ? 100 : 0;
      let limited;
      beforeEach(async () => {
        limited = await createStore({ maxLifetime: LIFETIME });
      });
      afterEach(() => limited.close());

      /** Stores a session. Returns the earliest and the latest end of its lifetime. */
      async function create(given) {
        const before = Date.now();
        await limited.create(given);
        return [before + LIFETIME - INEXACT, Date.now() + LIFETIME + INEXACT];
      }

      const isBetween = (end, [first, last]) =>
        assert.ok(end >= first && end <= last, `${end} is not from ${first} to ${last}`);

      it("ends a session of either shape, whatever its expires says", async () => {
        for (const fields of [{}, { cart: [1] }, { cart: [2], expires: Date.now() + HOUR }]) {
          const given = session(fields);
          const ends = await create(given);
          const { expires, ...rest } = await limited.get(given.sessionId);
          assert.equal(typeof expires, typeof given.expires);
          isBetween(new Date(expires).getTime(), ends);
          assert.deepEqual(rest, (({ expires, ...others }) => others)(given));
        }
        for (const { expires } of await limited.getByUser("ann")) {
          assert.ok(new Date(expires).getTime() <= Date.now() + LIFETIME + INEXACT);
        }
      });

      it("does not affect a session that ends earlier", async () => {
        const given = session({ expires: at(LIFETIME / 2) });
        await limited.create(given);
        assert.deepEqual(await limited.get(given.sessionId), given);
        const later = at(LIFETIME / 2 + 1);
        assert.equal(await limited.touch(given.sessionId, later), true);
        assert.equal((await limited.get(given.sessionId)).expires, later);
      });

      it("is not moved by touch and update", async () => {
        const given = session({ expires: at(1000) });
        const ends = await create(given);
        const end = async () => new Date((await limited.get(given.sessionId)).expires).getTime();
        assert.equal(await limited.touch(given.sessionId, at(HOUR)), true);
        const last = await end();
        isBetween(last, ends);
        await limited.update(given.sessionId, { ...given, expires: at(2 * HOUR) });
        isBetween(await end(), [last - INEXACT, last + INEXACT]);
        await limited.update(given.sessionId, { ...given, expires: at(2 * HOUR), cart: [1] });
        isBetween(await end(), [last - INEXACT, last + INEXACT]);
        await limited.touch(given.sessionId, at(1000));
        assert.ok((await end()) < last);
        await limited.touch(given.sessionId, at(HOUR));
        isBetween(await end(), [last - INEXACT, last + INEXACT]);
      });
    });

    describe("maxSessionBytes", () => {
      it("is 1 MiB of JSON by default", async () => {
        const frame = session({ data: "" });
        const data = "x".repeat(2 ** 20 - JSON.stringify(frame).length);
        await store.create({ ...frame, data });
        assert.equal((await store.get(frame.sessionId)).data.length, data.length);
        const larger = session({ data: `${data}x` });
        await assert.rejects(
          store.create(larger),
          failsWith("ERR_SESSION_TOO_LARGE", /1048577 bytes.*1048576/),
        );
        await assert.rejects(
          store.update(frame.sessionId, { ...frame, data: `${data}x` }),
          failsWith("ERR_SESSION_TOO_LARGE"),
        );
        assert.equal((await store.get(frame.sessionId)).data.length, data.length);
        assert.equal(await store.size(), 1);
      });

      it("counts bytes of UTF-8, for either shape of session", async () => {
        const [plain, other] = [session({ userId: 'é"\n' }), session({ cart: "é" })];
        for (const given of [plain, other]) {
          const bytes = Buffer.byteLength(JSON.stringify(given));
          const [fits, tooSmall] = [
            await createStore({ maxSessionBytes: bytes }),
            await createStore({ maxSessionBytes: bytes - 1 }),
          ];
          await fits.create(given);
          await assert.rejects(tooSmall.create(given), failsWith("ERR_SESSION_TOO_LARGE"));
          assert.equal(await tooSmall.size(), 0);
          await Promise.all([fits.close(), tooSmall.close()]);
        }
      });
    });

    describe("bad input", () => {
      for (const [what, bad] of badSessions) {
        it(`${what} is refused, and changes nothing`, async () => {
          const live = session({ keep: true });
          await store.create(live);
          const given = bad({ sessionId: newId(), expires: at(HOUR), userId: "ann" });
          await assert.rejects(store.create(given), failsWith("ERR_INVALID_SESSION", /must be .+; got /));
          const update = bad({ ...live, userId: "mallory" });
          await assert.rejects(store.update(live.sessionId, update), failsWith("ERR_INVALID_SESSION"));
          assert.deepEqual(await store.getByUser("ann"), [live]);
          assert.equal(await store.size(), 1);
        });
      }

      for (const [what, call, code] of badCalls) {
        it(`${what} is refused`, async () => {
          const live = session();
          await store.create(live);
          const promise = call(store, live);
          assert.ok(promise instanceof Promise, "it threw, or gave no promise");
          await assert.rejects(promise, failsWith(code, /must be .+; got |has no option/));
          assert.deepEqual(await store.getByUser("ann"), [live]);
        });
      }

      it("is never shown in a message", async () => {
        const secret = "s3cret";
        for (const given of [
          session({ sessionId: secret.repeat(100) }),
          session({ sessionId: `${secret}\ud800` }),
          session({ expires: secret }),
          session({ toJSON: () => assert.fail(secret) }),
          session({ [secret]: 1n }),
        ]) {
          await assert.rejects(store.create(given), (error) => !error.message.includes(secret));
        }
      });
    });

    describe("close", () => {
      it("is idempotent, and makes all other calls reject", async () => {
        const one = session();
        assert.equal(await store.close(), undefined);
        assert.equal(await store.close(), undefined);
        await store[Symbol.asyncDispose]();
        for (const call of [
          () => store.create(one),
          () => store.create({ ...one, extra: 1 }),
          () => store.get(one.sessionId),
          () => store.update(one.sessionId, one),
          () => store.touch(one.sessionId, at(HOUR)),
          () => store.delete(one.sessionId),
          () => store.clean(),
          () => store.getByUser("ann"),
          () => store.deleteByUser("ann"),
          () => store.size(),
          () => store.ids().next(),
          () => store.sessions().next(),
          () => store.sessions({ userId: "ann" }).next(),
          () => store.clear(),
          () => store.stats(),
        ]) {
          await assert.rejects(call(), failsWith("ERR_STORE_CLOSED"), call.toString());
        }
      });

      it("lets calls in flight complete", async () => {
        for (let count = 0; count < 1000; count++) await store.create(session({ expires: at(-1) }));
        const results = await Promise.allSettled([store.clean(), store.size(), store.clear(), store.close()]);
        assert.deepEqual([...new Set(results.map((result) => result.status))], ["fulfilled"]);
      });
    });

    describe("the class", () => {
      it("has a description of the store in db", () => {
        assert.equal(typeof store.db, "object");
        assert.ok(Object.isFrozen(store.db));
        assert.ok(Object.keys(store).includes("db"));
      });

      it("can be subclassed", async () => {
        const Audited = class extends store.constructor {
          seen = [];
          async get(sessionId) {
            this.seen.push(sessionId);
            return super.get(sessionId);
          }
        };
        const audited = await createStore({}, Audited);
        const one = session();
        await audited.create(one);
        assert.deepEqual(await audited.get(one.sessionId), one);
        assert.deepEqual(audited.seen, [one.sessionId]);
        await audited.close();
      });
    });
  });
}

module.exports = { conformance, session, at, HOUR };
