"use strict";

const path = require("node:path");
const { locateStore } = require("./open-store.js");
const show = require("./show.js");

async function run(task) {
  const location = locateStore(task.options);
  const store = task.openStore({ isRead: true });
  // The app keeps running, so this is counted at another moment than the other figures.
  const live = await task.interruptible(store.size());
  const counts = { live, ...(await task.interruptible(store.stats())) };
  const { answer, lines } = location.redis ? inRedis(store, location, counts) : inFile(location, counts);
  return task.print(...(task.options.json ? [show.json(answer)] : lines));
}

function inFile({ directory, origin }, { live, sessions, bytes, fileBytes }) {
  const expired = Math.max(0, sessions - live);
  const location = path.resolve(directory);
  return {
    answer: { path: location, sessions, live, expired, bytes, fileBytes },
    lines: [
      `store     ${show.escapeUnsafe(location)} (from ${origin})`,
      `sessions  ${show.number(live)} live, ${show.number(expired)} expired and not yet swept`,
      `in use    ${show.bytes(bytes)}`,
      `file      ${show.bytes(fileBytes)}`,
    ],
  };
}

function inRedis({ db }, { shown, origin }, { live }) {
  const { prefix } = db;
  return {
    answer: { redis: shown, prefix, live },
    lines: [
      `store     ${show.escapeUnsafe(shown)} (from ${origin})`,
      `prefix    ${show.escapeUnsafe(prefix)}`,
      `sessions  ${show.number(live)} live`,
    ],
  };
}

module.exports = {
  summary: "show session counts and size",
  usage: ["[--json]"],
  about: [
    "If the file is much larger than its used part, native-store backup makes a compact copy.",
    "Each process of the app has its own counters, such as hits and misses, and its own state of the redo log. This " +
      "command does not see them: call store.stats() in the app.",
    "With a RedisStore it scans every key to count.",
  ],
  options: {
    json: {
      help: "one line of JSON: path, sessions, live, expired, bytes, fileBytes; or redis, prefix, live",
    },
  },
  run,
};
