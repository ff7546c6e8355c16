"use strict";

const { EXIT } = require("./failures.js");
const show = require("./show.js");

async function run(task) {
  const store = task.openStore({
    isRead: true,
    onlyFiles: "verify is for a FileStore: a RedisStore has no files",
  });
  const progress = task.progress("verify", null);
  const onProgress = ({ checked, total }) => progress.at(checked, total);
  const result = await task.interruptible(store.verify({ onProgress }));
  await task.print(...(task.options.json ? [show.json(result)] : linesOf(result)));
  return result.ok ? EXIT.done : EXIT.no;
}

function linesOf({ ok, sessions, expired, unreadable, pages, problems }) {
  const counts = [
    `${show.count(sessions, "session")} (${show.number(expired)} expired)`,
    show.count(pages, "page"),
  ];
  if (unreadable > 0) counts.push(`${show.number(unreadable)} of a secret that is not given`);
  return [...problems.map(show.escapeUnsafe), `${ok ? "sound" : "damaged"}: ${counts.join(", ")}`];
}

module.exports = {
  summary: "check a file, and report problems",
  usage: ["[--json]"],
  about: [
    "Lists the problems it finds, one a line. Changes nothing. The exit code is 0 for a store that is sound, and 1 for " +
      "one with problems.",
  ],
  options: { json: { help: "one line of JSON: ok, sessions, expired, unreadable, pages, problems" } },
  run,
};
