"use strict";

const { wrongUsage } = require("../failures.js");

/** The `--ttl` of the options in milliseconds, or `undefined`. */
function readTtl({ ttl }) {
  if (ttl === undefined) return undefined;
  if (!/^[1-9]\d{0,14}$/.test(ttl)) {
    throw wrongUsage(`--ttl must be a whole number of milliseconds from 1; got ${JSON.stringify(ttl)}`);
  }
  return Number(ttl);
}

module.exports = { readTtl };
