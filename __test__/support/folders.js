"use strict";

// Folders for stores, gone when the tests of the file that asks for them have ended.

const fs = require("node:fs");
const os = require("node:os");
const path = require("node:path");
const { after } = require("node:test");

// In memory, where there is such a place: for tests that do not ask whether the disk keeps what it is given.
const MEMORY = "/dev/shm";

let root;
let made = 0;

/** The path of a folder that is not there yet. */
function newFolder() {
  if (root === undefined) {
    root = fs.mkdtempSync(path.join(fs.existsSync(MEMORY) ? MEMORY : os.tmpdir(), "native-store-"));
    after(() => fs.rmSync(root, { recursive: true }));
  }
  return path.join(root, `${++made}`);
}

module.exports = { newFolder };
