"use strict";

const { wrongUsage } = require("./failures.js");
const { setTimeout: sleep } = require("node:timers/promises");
const { LiveSessions } = require("./live-sessions.js");
const show = require("./show.js");
const { hasUser, noteOtherType, readUser, userOptions } = require("./user-options.js");

const WATCH_EVERY = 1000;

async function run(task) {
  const { options, output } = task;
  const limit = readLimit(options.limit);
  const userId = readUser(options);
  if (options.watch && options.limit) throw wrongUsage("--watch and --limit exclude each other");
  const store = task.openStore({ isRead: true });
  const sessions = new LiveSessions(store, task, hasUser(options) ? { userId } : undefined);
  const lineOf = options.json ? show.json : columnsOf;
  if (options.watch) return watch(task, sessions, lineOf);

  let listed = 0;
  for await (const { session } of sessions) {
    await output.line(lineOf(session));
    if (++listed === limit) break;
  }
  await output.finish();
  if (listed === 0) await noteOtherType(task, store);
  sessions.throwIfAnyUnreadable();
}

/** Lists the sessions, and then each new and each ended session, until a signal ends it. */
async function watch(task, sessions, lineOf) {
  const { output } = task;
  let before = new Map();
  for (;;) {
    const lines = new Map();
    for await (const { session } of sessions) {
      const { sessionId } = session;
      if (!before.has(sessionId)) await output.line(`+\t${lineOf(session)}`);
      lines.set(sessionId, before.get(sessionId) ?? lineOf(session));
    }
    for (const [sessionId, line] of before) {
      if (!lines.has(sessionId)) await output.line(`-\t${line}`);
    }
    await output.finish();
    before = lines;
    await task.interruptible(sleep(WATCH_EVERY));
  }
}

function readLimit(text) {
  if (text === undefined) return Number.POSITIVE_INFINITY;
  if (!/^[1-9]\d{0,14}$/.test(text)) throw wrongUsage("--limit must be a whole number from 1");
  return Number(text);
}

function columnsOf({ sessionId, userId, expires }) {
  const end = new Date(expires);
  return [
    show.id(sessionId),
    show.user(userId),
    end.toISOString(),
    `${show.duration(end - Date.now())} left`,
  ].join("\t");
}

module.exports = {
  summary: "list the live sessions, one per line",
  usage: ["[--user <id> | --user-json <json>] [--limit <n> | --watch] [--json]"],
  about: [
    "Each line has the id, the user, the end of the session and the time left, with tabs between them. The user is - for a " +
      "visitor who is not logged in. A value that is not plain text is shown as JSON, and a long user is cut. --json " +
      "shows all of it.",
    "A user's sessions come oldest first, those of everyone in no order.",
    "--watch continues once a second. Each line then starts with + for a new session, or - for an ended one, and a tab. It " +
      "keeps the line of each live session in memory.",
    "CAUTION: anyone who has a session id can impersonate its user. An id is as good as a password: keep it out of logs, " +
      "tickets and chats.",
  ],
  options: {
    ...userOptions,
    limit: { value: "<n>", help: "at most this many" },
    watch: { help: "the sessions, and then new and ended ones, until Ctrl+C" },
    json: { help: "each whole session, as a line of JSON" },
  },
  run,
};
