"use strict";

const { randomBytes } = require("node:crypto");
const fs = require("node:fs");
const path = require("node:path");

/**
 * The secret that cookies are sealed with: `SESSION_SECRET`, or one that is made at the first start and kept beside
 * the sessions. With another after each start, no cookie would outlive a deploy, whatever the store.
 */
function appSecret(dataDir) {
  if (process.env.SESSION_SECRET) return process.env.SESSION_SECRET;
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
