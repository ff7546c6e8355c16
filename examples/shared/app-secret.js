"use strict";

const { randomBytes } = require("node:crypto");
const fs = require("node:fs");
const path = require("node:path");

const SHORTEST = 32;

function givenSecret() {
  const secret = process.env.SESSION_SECRET;
  if (secret && secret.length < SHORTEST) {
    throw new Error(`SESSION_SECRET must have at least ${SHORTEST} characters.`);
  }
  return secret;
}

/**
 * The secret that cookies are signed or sealed with: `SESSION_SECRET`, or one that is made at the first start and kept
 * beside the sessions. With another after each start, no cookie would outlive a deploy, whatever the store.
 */
function appSecret(dataDir) {
  const given = givenSecret();
  if (given) return given;
  const file = path.join(dataDir, "secret");
  fs.mkdirSync(dataDir, { recursive: true });
  try {
    // `wx`: of two processes that start at once, one makes it.
    fs.writeFileSync(file, randomBytes(32).toString("hex"), { mode: 0o600, flag: "wx" });
  } catch (error) {
    if (error.code !== "EEXIST") throw error;
  }
  return fs.readFileSync(file, "utf8");
}

module.exports = { appSecret };
