"use strict";

const fs = require("node:fs");
const path = require("node:path");
const { DEFAULT_PATH } = require("./common-options.js");
const { reasonOf, wrongUsage } = require("./failures.js");
const { readSecrets } = require("./secrets.js");

// What LMDB names its file.
const DATA_FILE = "data.mdb";

/** Where the store is, and who said so. */
function locateStore(options) {
  if (options.path === "") throw wrongUsage("--path must not be empty");
  if (options.path !== undefined) return { directory: options.path, origin: "--path" };
  const { NATIVE_STORE_PATH } = process.env;
  if (NATIVE_STORE_PATH) return { directory: NATIVE_STORE_PATH, origin: "NATIVE_STORE_PATH" };
  return { directory: DEFAULT_PATH, origin: "the default" };
}

/**
 * Opens the store that the options name.
 * @param {{ isCreated?: boolean, hint?: string }} how Whether one that is missing is made; else what may help.
 * @param {object} storeOptions More options of `FileStore`.
 */
function openStore(options, { isCreated = false, hint = "" } = {}, storeOptions = {}) {
  const { directory, origin } = locateStore(options);
  const secret = readSecrets(options);
  if (!isCreated && !hasStore(directory)) {
    throw wrongUsage(`no store at ${directory} (from ${origin})${hint}`);
  }
  // Here, so that help needs no addon.
  const { FileStore } = require("../../index.js");
  return new FileStore({ path: directory, secret, sweepInterval: 0, ...storeOptions });
}

function hasStore(directory) {
  try {
    return fs.statSync(path.join(directory, DATA_FILE)).isFile();
  } catch (error) {
    if (error.code === "ENOENT" || error.code === "ENOTDIR") return false;
    throw wrongUsage(`cannot look into ${directory}: ${reasonOf(error)}`);
  }
}

module.exports = { locateStore, openStore };
