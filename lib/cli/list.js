"use strict";

const { wrongUsage } = require("./failures.js");
const { LiveSessions } = require("./live-sessions.js");
const show = require("./show.js");
const { hasUser, readUser, userOptions } = require("./user-options.js");

async function run(task) {
  const { options, output } = task;
  const limit = readLimit(options.limit);
  const userId = readUser(options);
  const store = task.openStore({ isRead: true });
  const everyone = new LiveSessions(store, task);
  const sessions = hasUser(options) ? await store.getByUser(userId) : everyone;

  let listed = 0;
  for await (const session of sessions) {
    await output.line(options.json ? show.json(session) : lineOf(session));
    if (++listed === limit) break;
  }
  await output.finish();
  everyone.throwIfAnyUnreadable();
}

function readLimit(text) {
  if (text === undefined) return Number.POSITIVE_INFINITY;
  if (!/^[1-9]\d{0,14}$/.test(text)) throw wrongUsage("--limit must be a whole number from 1");
  return Number(text);
}

function lineOf({ sessionId, userId, expires }) {
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
  usage: ["[--user <id> | --user-json <json>] [--limit <n>] [--json]"],
  about: [
    "Each line has the id, the user, the time when the session ends and how long that is from now, with tabs between " +
      "them. The user is - for a visitor who is not logged in. What is no plain text stands there as JSON, and " +
      "of a long user only the beginning; --json has all of it.",
    "A user's sessions come oldest first, those of everyone in no order.",
    "CAUTION: whoever has the id of a session can be its user. An id is as good as a password: keep it out of logs, " +
      "tickets and chats.",
  ],
  options: {
    ...userOptions,
    limit: { value: "<n>", help: "no more than so many" },
    json: { help: "each session whole, as a line of JSON" },
  },
  run,
};
