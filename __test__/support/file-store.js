"use strict";

const { createHash } = require("node:crypto");
const fs = require("node:fs");
const path = require("node:path");
const { FileStore } = require("../..");

/** Opens a store for as long as the call takes. */
async function withStore(options, call) {
  const store = new FileStore(options);
  try {
    return await call(store);
  } finally {
    await store.close();
  }
}

/** The hash of the data file, which shows a change. */
const hashOf = (dir) =>
  createHash("sha256")
    .update(fs.readFileSync(path.join(dir, "data.mdb")))
    .digest("hex");

module.exports = { hashOf, withStore };
