"use strict";

const { LiveSessions } = require("./live-sessions.js");
const { PrivateFile } = require("./private-file.js");
const { silent } = require("./progress.js");
const show = require("./show.js");

async function run(task) {
  const { operand: file = "-", output, stdout } = task;
  // Before the store, as root gives up the right to make it.
  const target = file === "-" ? output : openFile(task, file);
  const store = task.openStore({ isRead: true });
  const { sessions: held } = await store.stats();
  const total = held ?? (await store.size());
  // Data and a bar would not share the terminal.
  const progress = target === output && stdout.isTTY ? silent : task.progress("export");

  const sessions = new LiveSessions(store, task);
  let exported = 0;
  for await (const { session, createdAt } of sessions) {
    await target.line(show.json({ createdAt, session }));
    progress.at(++exported, total);
  }
  await target.finish();
  const where = target === output ? "" : ` to ${show.escapeUnsafe(file)}`;
  task.note(`${show.count(exported, "session")} exported${where}`);
  sessions.throwIfAnyUnreadable();
}

function openFile(task, file) {
  const target = new PrivateFile(file, { isReplaced: task.options.force, isKept: task.owner !== null });
  task.defer(() => target.discard());
  return target;
}

module.exports = {
  summary: "writes every live session as a line of JSON",
  usage: ["[file] [--force]"],
  about: [
    "To a file that only its owner may read, which is there once it is whole; without a file, or with -, to standard " +
      "output. native-store import reads it.",
    "A line is { createdAt, session }: when the session was created, or null where that is not known, and the session as " +
      "get returns it.",
    "The app may go on: a session that is there from the beginning to the end is exported once.",
    "CAUTION: the sessions are not encrypted here, whatever the store is, and whoever has the id of a session can be " +
      "its user. Ids are as good as passwords: handle the export as you would a list of those.",
  ],
  operand: { name: "file" },
  options: { force: { help: "replaces the file if it is there" } },
  run,
};
