"use strict";

const { likelySpelling } = require("../../spelling.js");
const { wrongUsage } = require("../failures.js");
const connectMongo = require("./connect-mongo.js");
const connectPgSimple = require("./connect-pg-simple.js");
const connectRedis = require("./connect-redis.js");
const jsonLines = require("./json-lines.js");
const sessionFileStore = require("./session-file-store.js");
const { betterSqlite3SessionStore, connectSqlite3 } = require("./sqlite-stores.js");

/** The packages whose sessions can be imported, by name. */
const packages = {
  "session-file-store": sessionFileStore,
  "connect-sqlite3": connectSqlite3,
  "better-sqlite3-session-store": betterSqlite3SessionStore,
  "connect-pg-simple": connectPgSimple,
  "connect-mongo": connectMongo,
  "connect-redis": connectRedis,
};

const OF_EVERY_PACKAGE = ["prefix", "user-field"];

/**
 * Opens the source that the task names, after checking its options.
 *
 * The `entries` of a source have:
 * - `name`, and `read`: how much of the `total` has been read with this entry.
 * - `session` and its `bytes`, or a `fault`, or neither if there was nothing to read.
 *
 * A source has:
 * - `check`, if it opens more files after the store: root may have become a user who cannot.
 * - `folder`, if it is a store in that folder.
 * - `noun` for its entries, if some may have a fault. Otherwise each entry must be a session.
 */
async function openSource(task) {
  const { operand, options } = task;
  const { from } = options;
  checkOptions(options);
  if (from === undefined) return jsonLines.open(task);
  const { reads, open } = packages[from];
  const isInEnvironment = reads === "url" && operand === undefined && process.env.NATIVE_STORE_FROM_URL;
  if (!isInEnvironment && (operand === undefined || operand === "-")) {
    const hint = reads === "url" ? ", or NATIVE_STORE_FROM_URL" : "";
    throw wrongUsage(`--from ${from} needs the <${reads}> of its store${hint}`);
  }
  return open(task);
}

function checkOptions({ from, ...options }) {
  if (from !== undefined && !Object.hasOwn(packages, from)) throw unknownPackage(from);
  const own = new Set(Object.values(packages).flatMap((source) => source.options));
  for (const option of own) {
    if (options[option] === undefined || packages[from]?.options.includes(option)) continue;
    const owners = Object.keys(packages).filter((name) => packages[name].options.includes(option));
    throw wrongUsage(`--${option} goes with --from ${owners.join(" or ")}`);
  }
  const early = OF_EVERY_PACKAGE.find((option) => options[option] !== undefined);
  if (early && from === undefined) throw wrongUsage(`--${early} goes with --from`);
}

function unknownPackage(given) {
  const names = Object.keys(packages);
  const likely = likelySpelling(given, names);
  const hint = likely ? `did you mean ${likely}?` : `it is one of ${names.join(", ")}`;
  return wrongUsage(`--from does not know ${JSON.stringify(given)}: ${hint}`);
}

module.exports = { openSource };
