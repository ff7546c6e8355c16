"use strict";

const { isUint8Array } = require("node:util/types");
const { invalidOption, kindOf } = require("./errors.js");

const EXPECTED = "a string or a Buffer, or a list of these";

/** Returns the bytes of each secret. The addon checks their number and length. */
function readSecrets(secret) {
  if (secret === undefined) return [];
  // The addon would treat an empty list as "not encrypted".
  if (Array.isArray(secret) && secret.length === 0) throw invalidOption("secret", EXPECTED, "an empty list");
  return (Array.isArray(secret) ? secret : [secret]).map((each) => {
    if (typeof each === "string" && each.isWellFormed()) return Buffer.from(each);
    if (isUint8Array(each)) return each;
    const given = typeof each === "string" ? "a string with a lone surrogate" : kindOf(each);
    throw invalidOption("secret", EXPECTED, given);
  });
}

module.exports = { readSecrets };
