"use strict";

// Content that a store must treat as data only: `[what, make]`, from a session's id and expiry.

const deep = (levels) => (levels === 0 ? "bottom" : { down: deep(levels - 1) });

const hostileSessions = [
  ["a key __proto__", (base) => JSON.parse(`{"__proto__":{"admin":true},${JSON.stringify(base).slice(1)}`)],
  ["a key constructor", (base) => ({ ...base, constructor: { prototype: 1 }, hasOwnProperty: "no" })],
  ["a path as id", (base) => ({ ...base, sessionId: `../../../etc/passwd${base.sessionId}` })],
  [
    "NUL in every text",
    (base) => ({ ...base, sessionId: `\0${base.sessionId}\0`, userId: "\0", a: "\0b\0" }),
  ],
  ["emoji", (base) => ({ ...base, sessionId: `😀${base.sessionId}`, userId: "👩‍👩‍👧‍👦", "🔑": "🔒" })],
  ["a user of Latin-1", (base) => ({ ...base, userId: "Zoë Müller ÿ" })],
  ["a user of Latin-1 that UTF-8 could be taken for", (base) => ({ ...base, userId: "Ã©" })],
  ["a user of Chinese", (base) => ({ ...base, userId: "用户" })],
  [
    "the replacement character",
    (base) => ({ ...base, sessionId: `\ufffd${base.sessionId}`, userId: "\ufffd" }),
  ],
  ["a lone surrogate in the user", (base) => ({ ...base, userId: "a\ud800" })],
  ["a lone surrogate in other content", (base) => ({ ...base, note: "\udfff", "\ud801": 1 })],
  ["quotes and line ends", (base) => ({ ...base, userId: 'a"b\\c\n\r\t\u2028\u2029\u0007' })],
  ["an empty user", (base) => ({ ...base, userId: "" })],
  ["a long user", (base) => ({ ...base, userId: "u".repeat(100_000) })],
  [
    "fields that are String objects",
    (base) => ({
      sessionId: new String(base.sessionId),
      userId: new String("ann"),
      expires: new String(base.expires),
    }),
  ],
  ["a user just over what is read on the stack", (base) => ({ ...base, userId: "é".repeat(257) })],
  ["what looks like a native reply", (base) => ({ ...base, userId: "e2026-01-01T00:00:00.000Z{T5{}" })],
  ["a value of one megabyte", (base) => ({ ...base, userId: "ann", blob: "é".repeat(500_000) })],
  ["a thousand levels", (base) => ({ ...base, userId: "ann", deep: deep(100) })],
  [
    "ten thousand keys",
    (base) => ({ ...base, ...Object.fromEntries(Array.from({ length: 1e4 }, (_, k) => [`k${k}`, k])) }),
  ],
  ["a user that is a number", (base) => ({ ...base, userId: 42 })],
  ["a user that is minus zero", (base) => ({ ...base, userId: -0 })],
  ["a user that is a very large number", (base) => ({ ...base, userId: 1e21 })],
  ["a user that is a boolean", (base) => ({ ...base, userId: false })],
  ["a user that is an object", (base) => ({ ...base, userId: { id: [1, { x: null }] } })],
  ["a user that is null", (base) => ({ ...base, userId: null })],
  ["a user that JSON leaves out", (base) => ({ ...base, userId: undefined })],
  ["a user that is a String object", (base) => ({ ...base, userId: new String("ann") })],
  [
    "a Date, a RegExp and NaN",
    (base) => ({ ...base, d: new Date(0), r: /x/, n: NaN, u: undefined, s: Symbol("s") }),
  ],
  ["an instance of a class", (base) => Object.assign(new (class Login {})(), { ...base, userId: "ann" })],
  ["a session without a prototype", (base) => Object.assign(Object.create(null), base, { userId: "ann" })],
  ["a frozen session", (base) => Object.freeze({ ...base, userId: "ann" })],
  ["a session behind a Proxy", (base) => new Proxy({ ...base, userId: "ann" }, {})],
  [
    "a session with getters",
    (base) => ({
      ...base,
      get userId() {
        return "ann";
      },
    }),
  ],
  [
    "a toJSON that gives another object",
    (base) => ({ toJSON: () => ({ ...base, userId: "ann", made: true }) }),
  ],
  ["a toJSON of its own user", (base) => ({ ...base, userId: { toJSON: (key) => `${key} of ann` } })],
  ["a key that is the empty string", (base) => ({ ...base, "": "empty" })],
  [
    "numbers at the edges",
    (base) => ({ ...base, n: [Number.MAX_VALUE, Number.MIN_VALUE, 2 ** 53, -1.5e-7] }),
  ],
];

module.exports = { hostileSessions };
