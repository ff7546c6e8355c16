"use strict";

const path = require("node:path");
const { requireYes } = require("./confirm.js");
const { EXIT, Failure, wrongUsage } = require("./failures.js");
const { DATA_FILE, asOwner, findFiles, locateStore } = require("./open-store.js");
const show = require("./show.js");

async function run(task) {
  const { options } = task;
  const { directory, redis } = locateStore(options);
  if (redis) throw wrongUsage("discard-log is for a FileStore: a RedisStore has no redo log");
  findFiles(options);
  const shown = show.escapeUnsafe(path.resolve(directory));
  const { inspectLog, discardLog } = nativeCalls();

  const { isNeeded, damage } = asOwner(options, inspectLog);
  if (!isNeeded) throw new Failure(EXIT.no, `nothing to do: the store in ${shown} needs no redo log`);
  if (!damage) {
    throw new Failure(
      EXIT.no,
      `nothing to do: the redo log of ${shown} is sound, and the store can be opened`,
    );
  }
  if (!options.yes || !options.quiet) task.stderr.write(`${warningOf(shown, damage).join("\n")}\n\n`);
  if (!options.yes) await requireYes(task, "Discard the log?");

  const { kept, ended, file } = asOwner(options, (...place) => discardLog(...place, damage.fingerprint));
  await task.print(
    `log discarded: ${sessions(kept, "is", "are")} as in the log, ${show.number(ended)} ${ended === 1 ? "was" : "were"} ended by it`,
    ...(file === undefined ? [] : [`the damaged log is now ${show.escapeUnsafe(file)}`]),
  );
  task.note("to check the store, run native-store verify");
}

/** Returns the native calls, with errors converted to `SessionStoreError`. */
function nativeCalls() {
  const native = require("../native.js");
  const { callNative } = require("../session-store.js");
  const wrap =
    (call) =>
    (...args) =>
      callNative(() => call(...args));
  return { inspectLog: wrap(native.inspectLog), discardLog: wrap(native.discardLog) };
}

function warningOf(directory, damage) {
  const data = path.join(directory, DATA_FILE);
  return [
    `The redo log of the store in ${directory} cannot be recovered: ${show.escapeUnsafe(damage.problem)}`,
    "",
    ...(damage.file === undefined
      ? []
      : [
          `  log        ${show.escapeUnsafe(damage.file)}, ${show.bytes(damage.fileBytes)}, ${written(damage.writtenAt)}`,
        ]),
    `  data file  ${data}, ${written(damage.dataWrittenAt)}`,
    `  kept       ${keptOf(damage)}`,
    `  lost       ${lostOf(damage)}`,
    "",
    ...CONSEQUENCES,
  ];
}

function keptOf({ changes, isDataAhead }) {
  if (changes === 0) return "nothing but the data file";
  const those = `${show.count(changes, "change")} of sessions from before the damage`;
  // A session among them may have ended since.
  return isDataAhead ? `the ends of sessions in ${those}, as the data file may be newer` : those;
}

function lostOf({ file, lostBytes, laterChanges }) {
  if (file === undefined) return "all writes since the last drain of the log";
  const bytes =
    lostBytes > 0
      ? `at least ${show.bytes(lostBytes)} of the log`
      : "what was written after that, if anything was";
  if (laterChanges === 0) return bytes;
  return `${bytes}, and ${show.count(laterChanges, "later change")} (the sessions that they end stay ended)`;
}

const written = (millis) =>
  millis === undefined ? "last written at an unknown time" : `last written ${new Date(millis).toISOString()}`;

const sessions = (number, one, more) => `${show.count(number, "session")} ${number === 1 ? one : more}`;

// The whole log is drained 30 s after a write. A half-full log is drained by its oldest quarter, except rows that have
// changed since.
const CONSEQUENCES = [
  "Look first for the redo.log that belongs to this data.mdb: with it nothing is lost. A backup loses more than this.",
  "The log holds the writes since its last drain: often those of the last 30 seconds, and under load also older ones of",
  "sessions that change all the time. The lost writes are undone:",
  "- Logins and changes are gone. Those users have to log in again.",
  "- Logouts are gone too. Anyone who still has the cookie is logged in again, until the session expires.",
  "If no logout may be undone, end sessions before the app starts again: those of a user with",
  "native-store revoke --user <id>, or all of them with native-store revoke --all.",
];

module.exports = {
  summary: "open a store whose redo log is missing or damaged, without the lost writes",
  usage: ["[--yes]"],
  about: [
    "For a store that is refused with ERR_STORE_CORRUPT because of its redo log. Shows the damage, what it keeps and what " +
      "is lost. Then it asks. Without a terminal it needs --yes.",
    "It keeps the changes before the damage. From changes after it, and from changes that may be older than the data " +
      "file, it keeps only the ends of sessions. Other logins, changes and logouts are undone: a session that was logged " +
      "out there is live again until it expires. native-store revoke ends the sessions of a user, or all of them.",
    "The damaged file stays in the folder as redo.log.damaged-<id>. Remove it when nobody needs it any more. An encrypted " +
      "store needs no secret for this.",
    "Stop all processes that use the store first. If the command is killed, the store is refused as before, or the log " +
      "is discarded as a whole. It does not touch a sound log.",
  ],
  options: { yes: { help: "discards the log without asking" } },
  run,
};
