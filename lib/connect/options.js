"use strict";

const { invalidOption, kindOf, SessionStoreError } = require("../errors.js");
const { anything, validateOptions } = require("../options.js");
const { maxLifetime } = require("../session-store.js");

const DAY = 24 * 60 * 60 * 1000;
// From today on JavaScript has dates for longer than that.
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

const byUserOptions = { except: anything };

function readOptions(options, store) {
  const given = validateOptions(options, connectOptions);
  const { ttl = DAY, touchAfter = 0, prefix = "", userId } = given;
  checkLifetime(store, given.maxLifetime);
  const isFixed = typeof ttl !== "function";
  return {
    ttl: isFixed ? () => ttl : ttl,
    fixedTtl: isFixed ? ttl : undefined,
    touchAfter,
    prefix,
    userId,
    maxLifetime: store[maxLifetime] ?? null,
  };
}

function checkStore(store) {
  if (METHODS.every((method) => typeof store?.[method] === "function")) return;
  throw invalidOption("store", "a store of this package, such as new FileStore({ path })", kindOf(store));
}

/** Throws if the store does not have the `maxLifetime` that is given here. It is the store that ends sessions. */
function checkLifetime(store, given) {
  const limit = store[maxLifetime] ?? null;
  if (given === undefined || given === limit) return;
  const expected = `that of the store, such as new FileStore({ path, maxLifetime: ${given} })`;
  const has = limit === null ? "none" : limit;
  throw invalidOption("maxLifetime", expected, `${given}, where the store has ${has}`);
}

/** The milliseconds that `ttl` gives a session. */
function lifetimeOf(ttl, session) {
  const lifetime = ttl(session);
  if (typeof lifetime === "number" && lifetime > 0 && lifetime <= LONGEST) return lifetime;
  const given = typeof lifetime === "number" ? String(lifetime) : kindOf(lifetime);
  throw new SessionStoreError(
    "ERR_INVALID_OPTION",
    `ttl must return a number of milliseconds above 0; got ${given}`,
  );
}

/** The user of a session, if it has one. */
function userOf(userId, session) {
  const user = userId?.(session) ?? undefined;
  if (typeof user === "function" || typeof user === "symbol") {
    throw new SessionStoreError("ERR_INVALID_OPTION", `userId must return a JSON value; got ${kindOf(user)}`);
  }
  if (typeof user?.then !== "function") return user;
  throw new SessionStoreError("ERR_INVALID_OPTION", "userId must return a JSON value; got a promise");
}

module.exports = { readOptions, checkStore, lifetimeOf, userOf, byUserOptions };
