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
 * Returns the secret that signs or encrypts cookies: `SESSION_SECRET`, or a random one that is kept next to the
 * sessions. With a new secret on every start, no cookie would survive a deploy.
 */
function appSecret(dataDir) {
  const given = givenSecret();
  if (given) return given;
  const file = path.join(dataDir, "secret");
  fs.mkdirSync(dataDir, { recursive: true });
  try {
    // `wx`: if two processes start concurrently, only one creates the file.
    fs.writeFileSync(file, randomBytes(32).toString("hex"), { mode: 0o600, flag: "wx" });
  } catch (error) {
    if (error.code !== "EEXIST") throw error;
  }
  return fs.readFileSync(file, "utf8");
}

module.exports = { appSecret };
