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

/** Lists the sessions, and then those that come and go, until a signal ends it. */
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
  summary: "the live sessions, one a line",
  usage: ["[--user <id> | --user-json <json>] [--limit <n> | --watch] [--json]"],
  about: [
    "Each line has the id, the user, the time when the session ends and how long that is from now, with tabs between " +
      "them. The user is - for a visitor who is not logged in. What is no plain text stands there as JSON, and " +
      "of a long user only the beginning; --json has all of it.",
    "A user's sessions come oldest first, those of everyone in no order.",
    "--watch goes on once a second. Each line then begins with + for a session that is new, or - for one that has ended, " +
      "and a tab. It keeps the line of each live session in memory.",
    "CAUTION: whoever has the id of a session can be its user. An id is as good as a password: keep it out of logs, " +
      "tickets and chats.",
  ],
  options: {
    ...userOptions,
    limit: { value: "<n>", help: "no more than so many" },
    watch: { help: "the sessions, and then those that come and go, until Ctrl+C" },
    json: { help: "each session whole, as a line of JSON" },
  },
  run,
};
