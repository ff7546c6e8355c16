"use strict";

// Input that a store must refuse, each made from the fields of a valid session.

const circular = (good) => {
  const session = { ...good, cart: {} };
  session.cart.session = session;
  return session;
};

/** Invalid sessions: `[what, make]`. */
const badSessions = [
  ["undefined", () => undefined],
  ["null", () => null],
  ["a string", () => "session"],
  ["a number", () => 7],
  ["a BigInt", () => 7n],
  ["a boolean", () => true],
  ["a symbol", () => Symbol("session")],
  ["an array", (good) => [good]],
  ["an array that looks like a session", (good) => Object.assign([], good)],
  ["a function", (good) => Object.assign(() => {}, good)],
  ["a Map", (good) => new Map(Object.entries(good))],
  ["an empty object", () => ({})],
  [
    "an instance of a class whose toJSON throws",
    (good) =>
      Object.assign(
        new (class {
          toJSON() {
            throw new Error("no");
          }
        })(),
        good,
      ),
  ],
  ["a toJSON that gives nothing", (good) => ({ ...good, toJSON: () => undefined })],
  ["a toJSON that gives an array", (good) => ({ ...good, toJSON: () => [good] })],
  ["a toJSON that gives a string", (good) => ({ ...good, toJSON: () => "session" })],
  [
    "a getter that throws",
    (good) => ({
      ...good,
      get userId() {
        throw new Error("no");
      },
    }),
  ],
  ["a circular session", circular],
  ["a BigInt inside", (good) => ({ ...good, total: 7n })],
  ["a BigInt for userId", (good) => ({ ...good, userId: 7n })],
  ["fields that are inherited", (good) => Object.create(good)],
  ["no sessionId", ({ sessionId, ...rest }) => rest],
  ["sessionId undefined", (good) => ({ ...good, sessionId: undefined })],
  ["sessionId null", (good) => ({ ...good, sessionId: null })],
  ["an empty sessionId", (good) => ({ ...good, sessionId: "" })],
  ["a sessionId of 257 bytes", (good) => ({ ...good, sessionId: "x".repeat(257) })],
  ["a sessionId of 257 bytes in fewer characters", (good) => ({ ...good, sessionId: `x${"é".repeat(128)}` })],
  ["a sessionId of 258 bytes beside other fields", (good) => ({ ...good, sessionId: "é".repeat(129), a: 1 })],
  ["a sessionId of a million bytes", (good) => ({ ...good, sessionId: "x".repeat(1e6) })],
  ["a sessionId with a lone surrogate", (good) => ({ ...good, sessionId: "a\ud800" })],
  ["such a sessionId beside other fields", (good) => ({ ...good, sessionId: "\udc00b", a: 1 })],
  ["a numeric sessionId", (good) => ({ ...good, sessionId: 12 })],
  ["an object as sessionId", (good) => ({ ...good, sessionId: { toString: () => "a" } })],
  ["no expires", ({ expires, ...rest }) => rest],
  ["expires undefined", (good) => ({ ...good, expires: undefined })],
  ["expires null", (good) => ({ ...good, expires: null })],
  ['expires "soon"', (good) => ({ ...good, expires: "soon" })],
  ["an empty expires", (good) => ({ ...good, expires: "" })],
  ["expires NaN", (good) => ({ ...good, expires: NaN })],
  ["expires Infinity", (good) => ({ ...good, expires: Infinity })],
  ["an invalid Date", (good) => ({ ...good, expires: new Date(NaN) })],
  ["a date that is none", (good) => ({ ...good, expires: "2030-13-01T00:00:00.000Z" })],
  ["a number beyond every date", (good) => ({ ...good, expires: 8.64e15 + 1 })],
  ["expires true", (good) => ({ ...good, expires: true })],
  ["an object as expires", (good) => ({ ...good, expires: {} })],
  ["seconds as expires", (good) => ({ ...good, expires: Math.floor(Date.now() / 1000) })],
  ["a duration as expires", (good) => ({ ...good, expires: 60_000 })],
];

/** Strings that are longer than any id, which a cookie may hold: their sessions are absent. */
const longIds = [
  ["257 bytes", "x".repeat(257)],
  ["258 bytes in 129 characters", "é".repeat(129)],
  ["a million bytes", "x".repeat(1e6)],
];

const badIds = [
  ["undefined", undefined],
  ["null", null],
  ["a number", 12],
  ["an object", {}],
  ["a symbol", Symbol("id")],
  ["a BigInt", 1n],
  ["an empty string", ""],
  ["a lone surrogate", "a\ud800"],
];

const lookups = [
  ["get", (store, id) => store.get(id)],
  ["delete", (store, id) => store.delete(id)],
  ["touch", (store, id) => store.touch(id, Date.now() + 1000)],
];

const callsThatNameIds = [
  ["update", (store, id, live) => store.update(id, live)],
  ["update with more fields", (store, id, live) => store.update(id, { ...live, extra: 1 })],
  [
    "deleteByUser's except",
    (store, id) => id !== undefined && store.deleteByUser("ann", { except: id }),
    "ERR_INVALID_OPTION",
  ],
];

const badExpiries = [
  ["undefined", undefined],
  ["null", null],
  ["a boolean", true],
  ["an array", []],
  ["a BigInt", 1n],
  ["NaN", NaN],
  ["Infinity", Infinity],
  ["beyond every date", 8.64e15 + 1],
  ['"soon"', "soon"],
  ["an invalid Date", new Date(NaN)],
  ["seconds", Math.floor(Date.now() / 1000)],
  ["a duration", 60_000],
];

const badUsers = [
  ["undefined", undefined],
  ["null", null],
  ["a function", () => {}],
  ["a BigInt", 1n],
  ["what JSON makes null of", NaN],
];

const withIds = (calls, ids) =>
  calls.flatMap(([name, call, code = "ERR_INVALID_SESSION"]) =>
    ids
      .filter(([, id]) => !(name.startsWith("deleteByUser") && id === undefined))
      .map(([what, id]) => [
        `${name} of an id that is ${what}`,
        (store, live) => call(store, id, live),
        code,
      ]),
  );

/** Calls with an invalid argument: `[what, call(store, live), code]`. */
const badCalls = [
  ...withIds(lookups, badIds),
  ...withIds(callsThatNameIds, [...badIds, ...longIds]),
  ...badExpiries.map(([what, expires]) => [
    `touch with an expiry that is ${what}`,
    (store, live) => store.touch(live.sessionId, expires),
    "ERR_INVALID_SESSION",
  ]),
  ...badUsers.flatMap(([what, userId]) => [
    [`getByUser of ${what}`, (store) => store.getByUser(userId), "ERR_INVALID_SESSION"],
    [`deleteByUser of ${what}`, (store) => store.deleteByUser(userId), "ERR_INVALID_SESSION"],
  ]),
  [
    "a misspelt option of deleteByUser",
    (store) => store.deleteByUser("ann", { expect: "a" }),
    "ERR_INVALID_OPTION",
  ],
  ["options of deleteByUser that are none", (store) => store.deleteByUser("ann", null), "ERR_INVALID_OPTION"],
  [
    "an id in the place of deleteByUser's options",
    (store) => store.deleteByUser("ann", "a"),
    "ERR_INVALID_OPTION",
  ],
];

module.exports = { badSessions, badCalls, longIds };
