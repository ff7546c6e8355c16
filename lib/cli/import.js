"use strict";

const fs = require("node:fs");
const path = require("node:path");
const { stoppedAfter, wrongUsage } = require("./failures.js");
const { Importer } = require("./importer.js");
const { LeftOut } = require("./left-out.js");
const { DATA_FILE, locateStore } = require("./open-store.js");
const show = require("./show.js");
const { openSource } = require("./sources/index.js");

// Of the app's limits this knows nothing: what was once a session may be one again.
const LARGEST_SESSION = 2 ** 30;

async function run(task) {
  const { options } = task;
  const source = await openSource(task);
  const { directory } = locateStore(options);
  if (options.create && directory === undefined) {
    throw wrongUsage("--create is for a FileStore: in Redis there is nothing to make");
  }
  if (options.create && source.folder !== undefined) refuseSamePlace(source.folder, directory);
  const how = { isCreated: options.create, hint: "; import --create makes one" };
  const store = task.openStore(how, { maxSessionBytes: LARGEST_SESSION });
  source.check?.();
  const leftOut = source.noun && new LeftOut(source.noun);
  const importer = new Importer(store, { isReplacing: options.replace, leftOut });
  const progress = task.progress("import", source.unit);

  let seen;
  try {
    seen = await readAll(task, source, importer, progress);
  } catch (error) {
    await importer.settle();
    throw stoppedAfter(importer.failure ?? error, importer.report());
  }
  task.note(importer.report());
  noteMissingUsers(task, seen);
  leftOut?.throwIfAny();
}

/** How many sessions there were, and how many of them had a user. */
async function readAll(task, { entries, total }, importer, progress) {
  const seen = { sessions: 0, users: 0 };
  for await (const entry of entries) {
    task.throwIfInterrupted();
    await importer.take(entry);
    if (entry.session !== undefined) seen.sessions++;
    if (entry.session?.userId !== undefined) seen.users++;
    progress.at(entry.read, total);
  }
  task.throwIfInterrupted();
  await importer.settle();
  if (importer.failure) throw importer.failure;
  return seen;
}

/** Without it, a missing or misspelt field would show only when somebody is to be logged out everywhere. */
function noteMissingUsers(task, { sessions, users }) {
  const { from, "user-field": field } = task.options;
  if (from === undefined || sessions === 0 || users > 0) return;
  const where = field === undefined ? "" : ` in ${show.escapeUnsafe(field)}`;
  task.note(
    `no session has a user${where}: destroyByUser and revoke --user do not find them. To give them one, import again before the app starts, with ` +
      "--replace and --user-field, such as --user-field passport.user",
  );
}

/** Old stores are at ./sessions by default, as ours is. */
function refuseSamePlace(folder, directory) {
  // Where ours is beside it already, it was meant to be.
  if (realPath(directory) !== realPath(folder) || fs.existsSync(path.join(directory, DATA_FILE))) return;
  throw wrongUsage(`${directory} is the old store: --path names another place for the new one`);
}

function realPath(file) {
  try {
    return fs.realpathSync(file);
  } catch {
    return path.resolve(file);
  }
}

module.exports = {
  summary: "creates the sessions of an export, or of another package's store",
  usage: [
    "[file] [--replace] [--create]",
    "--from session-file-store <folder> [--ttl <ms>] [--extension <text>]",
    "--from connect-sqlite3 <file> [--table <name>]",
    "--from better-sqlite3-session-store <file>",
    "--from connect-pg-simple <url> [--schema <name>] [--table <name>]",
    "--from connect-mongo <url> [--database <name>] [--collection <name>] [--ttl <ms>]",
    "--from connect-redis <url> [--from-prefix <text>] [--ttl <ms>]",
  ],
  about: [
    "Reads lines of JSON as export writes them, from standard input where no file is given, or -. Sessions that have " +
      "expired are skipped, and so are those whose id is there already; the numbers are told at the end. A session keeps the " +
      "createdAt of its line, or counts as new where there is none; with --replace one that is there keeps its own.",
    "A line that is no session stops it. The message has the number of the line, and how many sessions were imported. Every " +
      "good line before it is in the store, and so may be some of those after it. Fix the line and import again: what is " +
      "there is skipped.",
    "A second import brings back sessions that users have ended since the first. Run it again only before the app starts.",
    "With --from it reads the store that an app with express-session or @fastify/session had, and makes of it what " +
      "ConnectStore reads: each session as it was, under the same id, so that the cookies go on to be valid, and with " +
      "the end that it had there. Give --prefix and --user-field what the app's ConnectStore has as prefix and userId. " +
      "Without --user-field no session has a user: destroyByUser and revoke --user do not find them. " +
      "A file, a row, a document or a key that is no session is left out; their number, the reasons and the first few are told at the " +
      "end, and the exit code is 1.",
    "Stop the app first: a session that changes meanwhile may be imported as it was before, and one that begins may " +
      "be missed. The old store is only read, and stays as it is. An SQLite database is read by the driver that the " +
      "app in this folder has (better-sqlite3 or sqlite3), or else by that of Node.js 22.13 and later.",
    "session-file-store ends a session whose cookie has no expiry by a ttl of its own, which no file tells: give it by " +
      "--ttl if it is not one hour. There it is in seconds, here in milliseconds. Files that are encrypted by a secret " +
      "of session-file-store are left out.",
    "A server is read by the driver that the app in this folder has: pg for connect-pg-simple, mongodb for " +
      "connect-mongo, redis (4 and later) or ioredis for connect-redis. A URL with a password is read from $NATIVE_STORE_FROM_URL, " +
      "where no URL is given here. Of a cluster of Redis one node is enough.",
    "A key of connect-redis without a TTL (disableTTL) ends with its cookie, or in a day if that has no expiry. With --ttl " +
      "it lives for that time at least. The same holds for a document of connect-mongo that has no expires, but for two " +
      "weeks. What connect-mongo has encrypted is left out.",
    "The limits that the app gives its store, such as maxSessionsPerUser, are not applied. A session that is older than " +
      "the app's maxLifetime counts as imported, but for the app it has ended.",
  ],
  operand: { name: "file" },
  options: {
    replace: { help: "updates the sessions whose id is there, rather than skip them" },
    create: { help: "makes the store if there is none" },
    from: { value: "<package>", help: "whose store it is; without, the sessions are lines of JSON" },
    prefix: { value: "<text>", help: "with --from: the prefix of the app's ConnectStore" },
    "user-field": {
      value: "<path>",
      help: "with --from: where a session has its user's id, such as passport.user",
    },
    ttl: {
      value: "<ms>",
      help: "the ttl of session-file-store, 3600000 by default, or of what has no TTL in a server",
    },
    extension: { value: "<text>", help: "the fileExtension of session-file-store; .json by default" },
    table: {
      value: "<name>",
      help: "the table of connect-sqlite3, sessions by default, or of connect-pg-simple, session by default",
    },
    database: { value: "<name>", help: "the dbName of connect-mongo; that of the URL by default" },
    collection: { value: "<name>", help: "the collectionName of connect-mongo; sessions by default" },
    "from-prefix": { value: "<text>", help: "the prefix of connect-redis; sess: by default" },
    schema: { value: "<name>", help: "the schemaName of connect-pg-simple; that of the database by default" },
  },
  run,
};
