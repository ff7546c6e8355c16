"use strict";

const { invalidOption, kindOf, misuse } = require("../errors.js");
const { warnOfSeconds } = require("../durations.js");
const { validateOptions } = require("../options.js");
const { SessionStore, maxLifetime, maxSessionsPerUser } = require("../session-store.js");

const DAY = 24 * 60 * 60 * 1000;
// In milliseconds. The current time plus this is still a valid JavaScript date.
const LONGEST = 8e15;

const METHODS = [
  "create",
  "get",
  "update",
  "touch",
  "delete",
  "getByUser",
  "deleteByUser",
  "size",
  "ids",
  "sessions",
  "clear",
  "close",
];

const isTime = (value) => Number.isSafeInteger(value) && value <= LONGEST;

const connectOptions = {
  ttl: {
    expected: "a whole number of milliseconds from 1, or a function of the session",
    accepts: (value) => typeof value === "function" || (isTime(value) && value >= 1),
  },
  touchAfter: {
    expected: "a whole number of milliseconds from 0",
    accepts: (value) => isTime(value) && value >= 0,
  },
  maxLifetime: {
    expected: "a whole number of milliseconds from 1",
    accepts: (value) => Number.isSafeInteger(value) && value >= 1,
  },
  prefix: {
    expected: "a string",
    accepts: (value) => typeof value === "string" && value.isWellFormed(),
  },
  userId: {
    expected: "a function of the session",
    accepts: (value) => typeof value === "function",
  },
};

function readOptions(options, store) {
  const given = validateOptions(options, connectOptions, { of: "ConnectStore" });
  const { ttl = DAY, touchAfter = 0, prefix = "", userId } = given;
  checkLifetime(store, given.maxLifetime);
  if (typeof ttl === "number") warnOfSeconds("ttl of ConnectStore", ttl, { isLifetime: true });
  warnOfSeconds("touchAfter of ConnectStore", touchAfter);
  if (userId === undefined && store[maxSessionsPerUser] !== undefined) warnOfUsers();
  const isFixed = typeof ttl !== "function";
  return {
    ttl: isFixed ? () => ttl : ttl,
    fixedTtl: isFixed ? ttl : undefined,
    touchAfter,
    prefix,
    userId,
    maxLifetime: store[maxLifetime] ?? null,
    // Shown by `inspect`.
    given: { ttl, touchAfter, prefix, userId },
  };
}

const USER_ID = "new ConnectStore(store, { userId: (session) => session.userId })";

/** Throws without the option `userId`: the call would silently find no session. */
function requireUserId({ userId }, method) {
  if (userId !== undefined) return;
  throw misuse(`${method} needs the option userId, which says whose a session is: ${USER_ID}`);
}

let hasWarned = false;

function warnOfUsers() {
  if (hasWarned) return;
  hasWarned = true;
  process.emitWarning(
    `maxSessionsPerUser has no effect on the sessions of a ConnectStore without the option userId: ${USER_ID}`,
    { code: "NATIVE_STORE_NO_USER" },
  );
}

/** Throws if it is not a store. */
function checkStore(store) {
  if (METHODS.every((method) => typeof store?.[method] === "function")) return store;
  throw invalidOption("store", "a store of this package, such as new FileStore({ path })", describe(store));
}

function describe(store) {
  if (typeof store === "function" && store.prototype instanceof SessionStore) {
    const options = { FileStore: "{ path }", RedisStore: "{ url }" }[store.name] ?? "";
    return `the class ${store.name}: did you mean new ${store.name}(${options})?`;
  }
  if (typeof store?.then === "function") return "a promise: await it";
  return kindOf(store);
}

/** Throws if the store has another `maxLifetime`. The store ends the sessions, not the adapter. */
function checkLifetime(store, given) {
  const limit = store[maxLifetime] ?? null;
  if (given === undefined || given === limit) return;
  const expected = `that of the store, such as new FileStore({ path, maxLifetime: ${given} })`;
  const has = limit === null ? "none" : limit;
  throw invalidOption("maxLifetime", expected, `${given}, where the store has ${has}`);
}

/** Returns the lifetime of a session by `ttl`, in milliseconds. */
function lifetimeOf(ttl, session) {
  const lifetime = ttl(session);
  if (typeof lifetime === "number" && lifetime > 0 && lifetime <= LONGEST) return lifetime;
  const given = typeof lifetime === "number" ? String(lifetime) : kindOf(lifetime);
  throw misuse(`ttl must return a number of milliseconds above 0; got ${given}`);
}

/** Returns the user of a session, or `undefined`. */
function userOf(userId, session) {
  const user = userId?.(session) ?? undefined;
  if (typeof user === "function" || typeof user === "symbol") {
    throw misuse(`userId must return a JSON value; got ${kindOf(user)}`);
  }
  if (typeof user?.then !== "function") return user;
  throw misuse("userId must return a JSON value; got a promise");
}

module.exports = { readOptions, checkStore, requireUserId, lifetimeOf, userOf };
