"use strict";

const fs = require("node:fs");
const { reasonOf, wrongUsage } = require("./failures.js");

/** Returns the option `secret` of the store, first the one that encrypts. Returns no option if there is no secret. */
function readSecrets(options) {
  const file = options["secret-file"];
  if (file !== undefined) {
    const secrets = linesOf(readFile(file));
    if (secrets.length === 0) throw wrongUsage(`the secret file ${file} is empty`);
    return { secret: secrets };
  }
  const secrets = linesOf(process.env.NATIVE_STORE_SECRET ?? "");
  return secrets.length > 0 ? { secret: secrets } : {};
}

function readFile(file) {
  try {
    return fs.readFileSync(file, "utf8");
  } catch (error) {
    throw wrongUsage(`cannot read the secret file ${file}: ${reasonOf(error)}`);
  }
}

/** Does not trim: a secret may start or end with blanks. */
const linesOf = (text) => text.split(/\r?\n/).filter((line) => line !== "");

module.exports = { readSecrets };
