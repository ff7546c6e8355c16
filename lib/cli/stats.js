"use strict";

const path = require("node:path");
const { locateStore } = require("./open-store.js");
const show = require("./show.js");

async function run(task) {
  const { directory, origin } = locateStore(task.options);
  const store = task.openStore();
  // Counted at another moment than the others, while the app goes on.
  const live = await task.interruptible(store.size());
  const { sessions, bytes, fileBytes } = await store.stats();
  const expired = Math.max(0, sessions - live);
  const location = path.resolve(directory);

  if (task.options.json) {
    return task.print(show.json({ path: location, sessions, live, expired, bytes, fileBytes }));
  }
  return task.print(
    `store     ${show.escapeUnsafe(location)} (from ${origin})`,
    `sessions  ${show.number(live)} live, ${show.number(expired)} expired and not yet swept`,
    `in use    ${show.bytes(bytes)}`,
    `file      ${show.bytes(fileBytes)}`,
  );
}

module.exports = {
  summary: "how many sessions the store holds, and how large it is",
  usage: ["[--json]"],
  about: [
    "Where the file is much larger than what is in use, native-store backup makes a compact copy. The counters that " +
      "a process keeps, such as hits and misses, are in that process: store.stats() has them.",
  ],
  options: { json: { help: "one line of JSON: path, sessions, live, expired, bytes, fileBytes" } },
  run,
};
