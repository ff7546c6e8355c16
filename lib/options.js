"use strict";

const { SessionStoreError, kindOf } = require("./errors.js");

const wholeNumber = (min) => ({
  expected: `a whole number from ${min} to ${Number.MAX_SAFE_INTEGER}`,
  accepts: (value) => Number.isSafeInteger(value) && value >= min,
});

const text = {
  expected: "a non-empty string",
  accepts: (value) => typeof value === "string" && value !== "" && value.isWellFormed(),
};

/** The options that every store takes. */
const common = {
  maxSessionBytes: wholeNumber(1),
  maxSessionsPerUser: wholeNumber(1),
  sweepInterval: wholeNumber(0),
};

const memoryOptions = { ...common, name: text, maxSessions: wholeNumber(1), maxBytes: wholeNumber(1) };

// Any value: the addon knows what an id is, and refuses `null`, which must not end the session that was to be kept.
const anything = { expected: "anything", accepts: () => true };

const deleteByUserOptions = { except: anything };

/** The given options that are not `undefined`. Throws for one that is unknown or out of range. */
function validateOptions(options, known) {
  if (options === undefined) return {};
  if (options === null || typeof options !== "object" || Array.isArray(options)) {
    throw invalid("options", "an object", kindOf(options));
  }
  const given = {};
  for (const [name, value] of Object.entries(options)) {
    if (!Object.hasOwn(known, name)) throw unknown(name, Object.keys(known));
    if (value === undefined) continue;
    const { expected, accepts } = known[name];
    if (!accepts(value)) {
      throw invalid(name, expected, typeof value === "number" ? String(value) : kindOf(value));
    }
    given[name] = value;
  }
  return given;
}

function invalid(option, expected, given) {
  return new SessionStoreError("ERR_INVALID_OPTION", `${option} must be ${expected}; got ${given}`);
}

function unknown(name, known) {
  const likely = known
    .map((option) => ({ option, distance: editDistance(name.toLowerCase(), option.toLowerCase()) }))
    .filter(({ option, distance }) => distance <= Math.max(2, option.length / 3))
    .sort((one, other) => one.distance - other.distance)[0];
  const hint = likely ? `did you mean ${likely.option}?` : `the options are ${known.join(", ")}`;
  return new SessionStoreError("ERR_INVALID_OPTION", `unknown option ${JSON.stringify(name)}: ${hint}`);
}

/** How many letters must be put in, taken out or changed to make one word of the other (Levenshtein). */
function editDistance(one, other) {
  let row = Array.from({ length: other.length + 1 }, (_, at) => at);
  for (let i = 0; i < one.length; i++) {
    const next = [i + 1];
    for (let j = 0; j < other.length; j++) {
      next.push(Math.min(row[j + 1] + 1, next[j] + 1, row[j] + (one[i] === other[j] ? 0 : 1)));
    }
    row = next;
  }
  return row[other.length];
}

module.exports = { validateOptions, memoryOptions, deleteByUserOptions };
