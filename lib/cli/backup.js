"use strict";

const { randomBytes } = require("node:crypto");
const fs = require("node:fs");
const path = require("node:path");
const { wrongUsage } = require("./failures.js");
const { moveInto } = require("./move.js");
const show = require("./show.js");

async function run(task) {
  const destination = path.resolve(task.operand);
  if (fs.lstatSync(destination, { throwIfNoEntry: false })) {
    throw wrongUsage(`${task.operand} is there already: a backup is a new directory`);
  }
  const store = task.openStore({
    onlyFiles: "backup is for a FileStore: in Redis, export writes what there is",
  });
  // Beside it, so that a copy that was broken off is never taken for a backup.
  const partial = path.join(
    path.dirname(destination),
    `.${path.basename(destination)}.${randomBytes(4).toString("hex")}.partial`,
  );
  task.defer(() => fs.rmSync(partial, { recursive: true, force: true }));

  const progress = task.progress("backup", show.bytes);
  const onProgress = ({ copied, total }) => progress.at(copied, total);
  const { bytes } = await task.interruptible(store.backup(partial, { onProgress }));
  moveInto(destination, partial);
  task.note(`backed up to ${show.escapeUnsafe(task.operand)}: ${show.bytes(bytes)}`);
}

module.exports = {
  summary: "copies the store, compacted, while it is in use",
  usage: ["<destination>"],
  about: [
    "The destination is a new directory, which only its owner may read; a FileStore opens it as any other store. It is " +
      "there once the copy is whole. Sessions that change meanwhile are in it as they were at one moment.",
    "This is also how to make a store smaller, whose file never shrinks: back it up, stop the app, put the copy in the " +
      "store's place, and start the app. Sessions that changed after the backup began are as they were then, so stop " +
      "the app first where that matters.",
    "An encrypted store stays encrypted. Any backup brings sessions back that were ended since: restore with care.",
  ],
  operand: { name: "destination", isRequired: true },
  options: {},
  run,
};
