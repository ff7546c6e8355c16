"use strict";

// The text of a record in a ConnectStore, and the comparison of such texts.

const assert = require("node:assert/strict");
const { describe, it } = require("node:test");
const { Cookie } = require("express-session");
const fc = require("fast-check");
const { hasSameData, recordOf } = require("../lib/connect/record.js");
const { isoOf } = require("../lib/iso.js");

const RUNS = 2000;
const LONGEST = 8.64e15;

const check = (property) => {
  fc.assert(property, { numRuns: RUNS });
  console.log(`property cases: ${RUNS}`);
};

describe("isoOf", () => {
  it("returns the text of toISOString over the whole range of dates", () => {
    const millis = fc.oneof(fc.integer({ min: -LONGEST, max: LONGEST }), fc.integer({ min: 0, max: 4e12 }));
    check(
      fc.property(millis, (time) => {
        assert.equal(isoOf(time), new Date(time).toISOString());
      }),
    );
    for (const time of [0, -1, LONGEST, -LONGEST, 86_399_999, 86_400_000]) {
      assert.equal(isoOf(time), new Date(time).toISOString());
    }
    assert.throws(() => isoOf(Number.NaN), RangeError);
  });
});

const OPTIONS = { prefix: "", ttl: () => 1000, userId: ({ user }) => user };
const textOf = (session, options = OPTIONS) => recordOf("an id", session, options).json;
const asJson = (value) => JSON.parse(JSON.stringify(value));

const expires = fc.date({ min: new Date(0), max: new Date(4e12), noInvalidDate: true });
const plainCookie = fc.record(
  {
    originalMaxAge: fc.option(fc.nat()),
    expires: fc.oneof(fc.constant(null), expires, fc.constant(new Date(Number.NaN))),
    path: fc.oneof(fc.constantFrom("/", '/"}', "}"), fc.string()),
    domain: fc.constant(undefined),
    own: fc.object({ maxDepth: 1 }),
  },
  { requiredKeys: ["path"] },
);
const expressCookie = fc
  .record({ maxAge: fc.nat({ max: 4e9 }), path: fc.string() })
  .map((o) => new Cookie(o));
const cookie = fc.oneof(plainCookie, expressCookie);
// Few values, so that two sessions are often equal.
const value = fc.constantFrom(0, 1, "a", '"}', '"session":{"cookie":{', null, [1], { expires: "x" });
const data = fc.dictionary(fc.constantFrom("a", "b", "cookies", "__proto__", "expires"), value, {
  maxKeys: 2,
});
const user = fc.constantFrom(undefined, null, 1, "1", "ada", { id: 1 }, { session: { cookie: { a: 1 } } });
const session = fc
  .record({ cookie, data, user })
  .map(({ cookie, data, user }) => ({ cookie, ...data, user }));

describe("the text of a record", () => {
  it("equals JSON.stringify", () => {
    check(
      fc.property(session, (session) => {
        const { session: stored, expires, userId, ...rest } = JSON.parse(textOf(session));
        assert.equal(JSON.stringify(stored), JSON.stringify(session));
        assert.deepEqual(rest, { sessionId: "an id" });
        assert.deepEqual(userId, session.user ?? undefined);
        assert.equal(new Date(expires).toISOString(), expires);
      }),
    );
  });

  it("equals JSON.stringify for unusual sessions, too", () => {
    const hidden = Object.defineProperty({ a: 1 }, "cookie", { value: { path: "/" } });
    const inherited = Object.create({ cookie: { path: "/" } }, { a: { value: 1, enumerable: true } });
    const odd = [
      { a: 1, cookie: { path: "/" } },
      { cookie: { path: "/" }, toJSON: () => ({ mine: true }) },
      { cookie: { toJSON: (key) => ({ key }) } },
      { cookie: { toJSON: () => "a text" } },
      { cookie: [1] },
      { cookie: "a text" },
      { cookie: null },
      {
        get cookie() {
          return { path: "/" };
        },
      },
      hidden,
      inherited,
    ];
    for (const session of odd) {
      assert.deepEqual(
        JSON.parse(textOf(session, { ...OPTIONS, userId: undefined })).session,
        asJson(session),
      );
    }
  });

  it("refuses a session that throws when it is read", () => {
    const session = {
      cookie: {},
      get user() {
        throw new Error("a secret");
      },
    };
    assert.throws(() => textOf(session, { ...OPTIONS, userId: undefined }), {
      code: "ERR_INVALID_SESSION",
      message: /^session must be an object that JSON.stringify can write/,
    });
  });

  it("has the same data as another if nothing differs but expiries and cookies", () => {
    const known = { same: 0, other: 0 };
    check(
      fc.property(session, session, fc.constantFrom("", "T1700000000000"), (one, other, kind) => {
        const dataOf = (session) => JSON.stringify({ ...session, cookie: undefined });
        const isSame = dataOf(one) === dataOf(other);
        const given = recordOf("an id", other, OPTIONS);
        assert.equal(hasSameData(kind + textOf(one), given), isSame && hasOneBrace(one, other));
        known[isSame ? "same" : "other"]++;
      }),
    );
    assert.ok(known.same > RUNS / 100 && known.other > RUNS / 100, JSON.stringify(known));
  });

  it("has other data if only the user differs", () => {
    const session = { cookie: { path: "/" }, a: 1 };
    const [ada, bob] = ["ada", "bob"].map((user) => ({ ...OPTIONS, userId: () => user }));
    assert.equal(hasSameData(textOf(session, ada), recordOf("an id", session, ada)), true);
    assert.equal(hasSameData(textOf(session, ada), recordOf("an id", session, bob)), false);
  });

  it("with another layout is never taken as equal", () => {
    const session = { cookie: { path: "/" }, a: 1 };
    const record = recordOf("an id", session, OPTIONS);
    const { sessionId, expires } = JSON.parse(record.json);
    assert.equal(hasSameData(record.json, record), true);
    for (const other of [
      { expires, sessionId, session },
      { sessionId: "an ID", expires, session },
      { sessionId, expires, userId: "ada", session },
      { sessionId, expires: '2026-11-28T23:59:59"000Z', session },
      { sessionId, expires, session: { a: 1, cookie: { path: "/" } } },
      { sessionId, expires, session, more: 1 },
      { sessionId, expires: 1, session },
      {},
    ]) {
      assert.equal(hasSameData(JSON.stringify(other), record), false, JSON.stringify(other));
    }
    const late = recordOf("an id", { a: 1, cookie: { path: "/" } }, OPTIONS);
    assert.equal(hasSameData(late.json, late), false);
  });
});

/** Whether the text after the first brace of the cookies is equal. That brace may be inside the cookies. */
function hasOneBrace(...sessions) {
  const rests = sessions.map((session) => {
    const text = JSON.stringify(session.cookie);
    return text.slice(text.indexOf("}"));
  });
  return rests[0] === rests[1];
}
