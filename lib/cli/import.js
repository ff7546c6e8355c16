"use strict";

const fs = require("node:fs");
const path = require("node:path");
const { stoppedAfter, wrongUsage } = require("./failures.js");
const { Importer } = require("./importer.js");
const { LeftOut } = require("./left-out.js");
const { DATA_FILE, locateStore } = require("./open-store.js");
const show = require("./show.js");
const { openSource } = require("./sources/index.js");

// The command does not know the app's limits, so it accepts every session of the old store.
const LARGEST_SESSION = 2 ** 30;

async function run(task) {
  const { options } = task;
  const source = await openSource(task);
  const { directory } = locateStore(options);
  if (options.create && directory === undefined) {
    throw wrongUsage("--create is for a FileStore: a RedisStore needs no creation");
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

/** Imports all entries. Resolves to the number of sessions, and how many of them have a user. */
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

/**
 * Warns if no session has a user. Otherwise a missing or misspelt field would only show at the first "log out
 * everywhere".
 */
function noteMissingUsers(task, { sessions, users }) {
  const { from, "user-field": field } = task.options;
  if (from === undefined || sessions === 0 || users > 0) return;
  const where = field === undefined ? "" : ` in ${show.escapeUnsafe(field)}`;
  task.note(
    `no session has a user${where}: destroyByUser and revoke --user do not find them. To give them one, import again before the app starts, with ` +
      "--replace and --user-field, such as --user-field passport.user",
  );
}

/** Refuses the folder of the old store. Both stores are at ./sessions by default. */
function refuseSamePlace(folder, directory) {
  // If our store is already in that folder, this is intended.
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
  summary: "create the sessions of an export, or of another package's store",
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
    "Reads lines of JSON as export writes them. Without a file, or with -, it reads standard input. It skips sessions that " +
      "have expired or whose id exists, and prints their numbers at the end. A session keeps the createdAt of its line. " +
      "Without one it counts as new. With --replace an existing session keeps its own createdAt.",
    "A line that is not a session stops the import. The message has the number of the line, and how many sessions were " +
      "imported. Every good line before it was imported, and possibly a few after it. Fix the line and run the import " +
      "again: it skips the sessions that exist.",
    "A second import brings back sessions that users have ended since the first. Run it again only before the app starts.",
    "With --from it reads the old store of an app with express-session or @fastify/session, and writes the sessions in the " +
      "form that ConnectStore reads. Each session keeps its id and its end, so existing cookies stay valid. Set --prefix " +
      "and --user-field to match prefix and userId of the app's ConnectStore. " +
      "Without --user-field no session has a user: destroyByUser and revoke --user do not find them. " +
      "A file, row, document or key that is not a session is left out. At the end the command prints how many, why, and " +
      "the first few names. The exit code is then 1.",
    "Stop the app first. If a session changes during the import, the old state may be imported, and new sessions may be " +
      "missed. The old store is only read. An SQLite database is read with the driver of the app in this folder " +
      "(better-sqlite3 or sqlite3), or with the driver of Node.js 22.13 or later.",
    "session-file-store ends a session whose cookie has no expiry after its own ttl, which is not in the files: pass it " +
      "with --ttl if it is not one hour. It is in seconds there, and in milliseconds here. Files that session-file-store " +
      "has encrypted are left out.",
    "A server is read with the driver of the app in this folder: pg for connect-pg-simple, mongodb for connect-mongo, " +
      "redis (4 and later) or ioredis for connect-redis. If the URL has a password, leave it out here and set " +
      "$NATIVE_STORE_FROM_URL. For a Redis cluster, one node is enough.",
    "A key of connect-redis without a TTL (disableTTL) ends with its cookie, or after a day if the cookie has no expiry. " +
      "With --ttl it lives at least that long. The same holds for a document of connect-mongo without expires, but with " +
      "two weeks. Sessions that connect-mongo has encrypted are left out.",
    "The import does not apply the limits of the app's store, such as maxSessionsPerUser. A session that is older than " +
      "the app's maxLifetime counts as imported, but has ended for the app.",
  ],
  operand: { name: "file" },
  options: {
    replace: { help: "updates sessions whose id exists, instead of skipping them" },
    create: { help: "creates the store if there is none" },
    from: { value: "<package>", help: "the package of the old store. Default: lines of JSON from export" },
    prefix: { value: "<text>", help: "with --from: the prefix of the app's ConnectStore" },
    "user-field": {
      value: "<path>",
      help: "with --from: where a session has its user's id, such as passport.user",
    },
    ttl: {
      value: "<ms>",
      help: "the ttl of session-file-store (default: 3600000), or of a key without a TTL",
    },
    extension: { value: "<text>", help: "the fileExtension of session-file-store. Default: .json" },
    table: {
      value: "<name>",
      help: "the table. Default: sessions for connect-sqlite3, session for connect-pg-simple",
    },
    database: { value: "<name>", help: "the dbName of connect-mongo. Default: the database in the URL" },
    collection: { value: "<name>", help: "the collectionName of connect-mongo. Default: sessions" },
    "from-prefix": { value: "<text>", help: "the prefix of connect-redis. Default: sess:" },
    schema: {
      value: "<name>",
      help: "the schemaName of connect-pg-simple. Default: the schema of the database",
    },
  },
  run,
};
