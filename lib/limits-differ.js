"use strict";

const { publishLimitsDiffer } = require("./events.js");

const shown = (value) => (value === null ? "not set" : JSON.stringify(value));

/** Warns that another process has the store open with other limits. `own` and `other` have the form of options. */
function warnOfLimits(db, { own, other }) {
  const differing = Object.keys(own).filter((option) => own[option] !== other[option]);
  const each = differing.map(
    (option) => `${option} is ${shown(other[option])} there, and ${shown(own[option])} here`,
  );
  const message =
    `another process has the ${KINDS[db.type](db)} open with other limits: ${each.join("; ")}. ` +
    "Each process keeps to its own in what it writes: give all of them the same";
  publishLimitsDiffer(db, { own, other, message });
  process.emitWarning(message, { code: "NATIVE_STORE_LIMITS_DIFFER" });
}

/**
 * Returns the function that the addon calls with both sets of limits as JSON, or `undefined` for a store without
 * limits. The addon keeps the function, so it must not reference the store.
 */
function limitsWarner(db, { maxSessionsPerUser, maxLifetime }) {
  if (maxSessionsPerUser === undefined && maxLifetime === undefined) return undefined;
  return (limits) => warnOfLimits(db, JSON.parse(limits));
}

const KINDS = {
  file: ({ path }) => `FileStore in ${path}`,
  redis: ({ prefix }) => `RedisStore of the prefix ${JSON.stringify(prefix)}`,
};

module.exports = { limitsWarner, warnOfLimits };
