"use strict";

const { randomBytes } = require("node:crypto");
const fs = require("node:fs");
const path = require("node:path");
const { reasonOf, wrongUsage } = require("./failures.js");
const { Keeper } = require("./keeper.js");
const { moveInto } = require("./move.js");
const { DATA_FILE } = require("./open-store.js");
const show = require("./show.js");

async function run(task) {
  const destination = path.resolve(task.operand);
  if (fs.lstatSync(destination, { throwIfNoEntry: false })) {
    throw wrongUsage(
      `${task.operand} already exists: a backup is a new folder, such as one with the date in its name`,
    );
  }
  // Copy to a name next to it, so that nobody takes an incomplete copy for a backup.
  const partial = path.join(
    path.dirname(destination),
    `.${path.basename(destination)}.${randomBytes(4).toString("hex")}.partial`,
  );
  const bytes =
    task.owner === null
      ? await backUp(task, partial, destination)
      : await backUpAsRoot(task, partial, destination);
  task.note(`backed up to ${show.escapeUnsafe(task.operand)}: ${show.bytes(bytes)}`);
}

const openStore = (task) =>
  task.openStore({
    isRead: true,
    onlyFiles: "backup is for a FileStore: use export for a RedisStore",
  });

async function backUp(task, partial, destination) {
  const store = openStore(task);
  task.defer(() => fs.rmSync(partial, { recursive: true, force: true }));
  const { bytes } = await task.interruptible(store.backup(partial, { onProgress: progressOf(task) }));
  moveInto(destination, partial);
  return bytes;
}

/** Makes a copy that root owns: creates it before root drops its privileges, and writes by descriptor. */
async function backUpAsRoot(task, partial, destination) {
  const file = createFile(task, partial, destination);
  const store = openStore(task);
  // Import it here: the help must not need the addon.
  const { backupInto } = require("../file-store.js");
  const { bytes } = await task.interruptible(
    store[backupInto](file.descriptor, { onProgress: progressOf(task) }),
  );
  await file.keeper.keep();
  return bytes;
}

function createFile(task, partial, destination) {
  try {
    fs.mkdirSync(partial, { mode: 0o700 });
    const keeper = new Keeper(partial, destination);
    task.defer(() => keeper.discard());
    const descriptor = fs.openSync(path.join(partial, DATA_FILE), "wx", 0o600);
    task.defer(() => fs.closeSync(descriptor));
    return { keeper, descriptor };
  } catch (error) {
    throw wrongUsage(`cannot write ${destination}: ${reasonOf(error)}`);
  }
}

function progressOf(task) {
  const progress = task.progress("backup", show.bytes);
  return ({ copied, total }) => progress.at(copied, total);
}

module.exports = {
  summary: "make a compact copy of a store in use",
  usage: ["<destination>"],
  about: [
    "The destination is a new folder, such as /backups/sessions-$(date +%F), which only its owner can read. It appears once " +
      "the copy is complete, a consistent snapshot of the store. A FileStore opens it like any other store.",
    "The file of a store never shrinks. To make it smaller, stop the app, make a backup, put it in the store's place, and " +
      "start the app.",
    "Root's backup belongs to root, also if another user owns the store.",
    "An encrypted store stays encrypted. A restored backup brings back sessions that have ended since.",
  ],
  operand: { name: "destination", isRequired: true },
  options: {},
  run,
};
