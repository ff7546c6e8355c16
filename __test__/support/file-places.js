"use strict";

// Temporary directories for FileStores. They are removed after the tests of the requesting file.

const fs = require("node:fs");
const os = require("node:os");
const path = require("node:path");
const { after } = require("node:test");

/** The tests of LMDB's locks, signals and namespaces need Linux. */
const skip = process.platform === "linux" ? false : "asks for what only Linux has";

const MEMORY = "/dev/shm";

/** A store takes a few megabytes from the start, and /dev/shm of a container has only 64. */
function isMemoryLarge() {
  if (!fs.existsSync(MEMORY)) return false;
  const { bavail, bsize } = fs.statfsSync(MEMORY);
  return bavail * bsize > 2 ** 31;
}

/** In memory if there is enough, or on a disk with `onDisk`. */
function makePlace({ onDisk = false } = {}) {
  const base = !onDisk && isMemoryLarge() ? MEMORY : os.tmpdir();
  const root = fs.mkdtempSync(path.join(base, "native-store-"));
  after(() => fs.rmSync(root, { recursive: true, force: true }));
  let made = 0;
  return {
    root,
    /** Returns a path that does not exist yet. */
    next: () => path.join(root, `${++made}`),
  };
}

module.exports = { makePlace, skip };
