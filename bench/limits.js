"use strict";

/** A target that is met by a value up to its limit: `{ text, sign, limit, unit, value, isMet }`. */
const atMost = (text, limit, unit, value) => ({
  text,
  sign: "<=",
  limit,
  unit,
  value,
  isMet: value <= limit,
});

/** One that is met by a value from its limit on. */
const atLeast = (text, limit, unit, value) => ({
  text,
  sign: ">=",
  limit,
  unit,
  value,
  isMet: value >= limit,
});

module.exports = { atLeast, atMost };
