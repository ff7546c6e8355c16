"use strict";

const { LiveSessions } = require("./live-sessions.js");
const { PrivateFile } = require("./private-file.js");
const { silent } = require("./progress.js");
const show = require("./show.js");

async function run(task) {
  const { operand: file = "-", output, stdout } = task;
  // Create it before the store is opened, which makes root drop its privileges.
  const target = file === "-" ? output : openFile(task, file);
  const store = task.openStore({ isRead: true });
  const { sessions: held } = await store.stats();
  const total = held ?? (await store.size());
  // Do not mix the data with a progress line in one terminal.
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
  summary: "write every live session as a line of JSON",
  usage: ["[file] [--force]"],
  about: [
    "Writes to a file that only its owner can read, and that appears once it is complete. Without a file, or with -, it " +
      "writes to standard output. native-store import reads it.",
    "A line is { createdAt, session }: when the session was created, or null if that is unknown, and the session as " +
      "get returns it.",
    "The app can keep running: a session that lives throughout the export is exported once.",
    "CAUTION: the export is not encrypted, even if the store is, and anyone who has a session id can impersonate its " +
      "user. An id is as good as a password: handle the export like a list of passwords.",
  ],
  operand: { name: "file" },
  options: { force: { help: "replaces an existing file" } },
  run,
};
