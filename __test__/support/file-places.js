"use strict";

// Directories for stores in files: gone when the tests of the file that asked for them have ended.

const fs = require("node:fs");
const os = require("node:os");
const path = require("node:path");
const { after } = require("node:test");

/** LMDB's locks, signals and namespaces are asked for as Linux has them. */
const skip = process.platform === "linux" ? false : "asks for what only Linux has";

const MEMORY = "/dev/shm";

/** A store takes some megabytes from the start on, and a container has 64 of these. */
function isMemoryLarge() {
  if (!fs.existsSync(MEMORY)) return false;
  const { bavail, bsize } = fs.statfsSync(MEMORY);
  return bavail * bsize > 2 ** 31;
}

/** In memory where there is enough of it, and on a disk with `onDisk`. */
function makePlace({ onDisk = false } = {}) {
  const base = !onDisk && isMemoryLarge() ? MEMORY : os.tmpdir();
  const root = fs.mkdtempSync(path.join(base, "native-store-"));
  after(() => fs.rmSync(root, { recursive: true, force: true }));
  let made = 0;
  return {
    root,
    /** A path of which nothing is there yet. */
    next: () => path.join(root, `${++made}`),
  };
}

module.exports = { makePlace, skip };
