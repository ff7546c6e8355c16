"use strict";

const fs = require("node:fs");
const path = require("node:path");
const { EXIT, Failure, reasonOf } = require("./failures.js");

/** Renames the finished output, and makes the rename durable. */
function moveInto(destination, partial) {
  try {
    fs.renameSync(partial, destination);
    // Windows cannot open directories.
    if (process.platform !== "win32") syncDirectory(path.dirname(destination));
  } catch (error) {
    throw new Failure(EXIT.failed, `cannot write ${destination}: ${reasonOf(error)}`);
  }
}

function syncDirectory(directory) {
  const descriptor = fs.openSync(directory, "r");
  try {
    fs.fsyncSync(descriptor);
  } finally {
    fs.closeSync(descriptor);
  }
}

module.exports = { moveInto };
