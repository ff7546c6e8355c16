"use strict";

/** A target with an upper limit: `{ text, sign, limit, unit, value, isMet }`. */
const atMost = (text, limit, unit, value) => ({
  text,
  sign: "<=",
  limit,
  unit,
  value,
  isMet: value <= limit,
});

/** A target with a lower limit. */
const atLeast = (text, limit, unit, value) => ({
  text,
  sign: ">=",
  limit,
  unit,
  value,
  isMet: value >= limit,
});

module.exports = { atLeast, atMost };
