"use strict";

const fs = require("node:fs");
const path = require("node:path");
const { isTool } = require("../options.js");
const { DEFAULT_PATH } = require("./common-options.js");
const { reasonOf, wrongUsage } = require("./failures.js");
const { become, ownerOf } = require("./privileges.js");
const { redisLocation } = require("./redis-location.js");
const { readSecrets } = require("./secrets.js");

// LMDB's name for its file.
const DATA_FILE = "data.mdb";

// The deadline of each step of a command, in milliseconds. An app that serves requests has less time.
const PATIENCE = 5000;

/**
 * Returns where the store is, and which setting says so: `{ directory, origin }`, or `{ redis, shown, origin }` in
 * Redis.
 */
function locateStore(options) {
  if (options.path === "") throw wrongUsage("--path must not be empty");
  if (options.redis !== undefined && options.path !== undefined) {
    throw wrongUsage("--redis and --path exclude each other");
  }
  const isForFiles = options["allow-network-fs"] && options.redis !== undefined;
  if (isForFiles) throw wrongUsage("--allow-network-fs is for a FileStore");
  const { NATIVE_STORE_PATH, NATIVE_STORE_REDIS_URL } = process.env;
  if (options.redis !== undefined) return redisLocation(options.redis, "--redis", options);
  if (options.path !== undefined) return inDirectory(options.path, "--path", options);
  if (NATIVE_STORE_REDIS_URL && NATIVE_STORE_PATH) {
    throw wrongUsage(
      "NATIVE_STORE_REDIS_URL and NATIVE_STORE_PATH are both set: --redis or --path says which",
    );
  }
  if (NATIVE_STORE_REDIS_URL) return redisLocation(NATIVE_STORE_REDIS_URL, "NATIVE_STORE_REDIS_URL", options);
  if (NATIVE_STORE_PATH) return inDirectory(NATIVE_STORE_PATH, "NATIVE_STORE_PATH", options);
  return inDirectory(DEFAULT_PATH, "the default", options);
}

function inDirectory(directory, origin, options) {
  const stray = ["redis-prefix", "redis-ca"].find((name) => options[name] !== undefined);
  if (stray) throw wrongUsage(`--${stray} goes with --redis`);
  return { directory, origin };
}

/** The user that root becomes before it opens the store: `{ uid, gid }`, or `null`. */
function ownerOfStore(options) {
  const { directory } = locateStore(options);
  return directory === undefined ? null : ownerOf(directory, DATA_FILE);
}

/**
 * Opens the store that the options name. Root becomes the owner of a `FileStore` first, so open files that need root
 * before.
 * @param {{ isRead?: boolean, isCreated?: boolean, hint?: string, onlyFiles?: string }} how `isRead`: opens it
 * read-only. `isCreated`: creates a missing store. `hint`: the end of the message for a missing store. `onlyFiles`: the
 * message if it is not a `FileStore`.
 * @param {object} storeOptions More options of the store.
 */
function openStore(options, how = {}, storeOptions = {}) {
  const { isRead = false, isCreated = false, hint = "", onlyFiles } = how;
  const { redis } = locateStore(options);
  const given = { ...readSecrets(options), sweepInterval: 0, [isTool]: true, ...storeOptions };
  if (redis && onlyFiles) throw wrongUsage(onlyFiles);
  if (!redis && !isCreated) findFiles(options, hint);
  // Import it here: the help must not need the addon, and root must load it before it becomes a user who cannot.
  const { FileStore, RedisStore } = require("../../index.js");
  if (redis) return new RedisStore({ ...redis, commandTimeout: PATIENCE, ...given });
  return asOwner(
    options,
    (path, allowNetworkFileSystem) =>
      new FileStore({ path, readOnly: isRead, allowNetworkFileSystem, ...given }),
  );
}

/** Throws if there is no store. */
function findFiles(options, hint = "") {
  const { directory, origin } = locateStore(options);
  if (!hasStore(directory)) throw wrongUsage(`no store at ${directory} (from ${origin})${hint}`);
}

/**
 * Returns the result of `call(directory, allowNetworkFileSystem)`. Root becomes the owner of the store first,
 * permanently.
 */
function asOwner(options, call) {
  const { directory } = locateStore(options);
  const owner = ownerOf(directory, DATA_FILE);
  if (owner !== null) become(owner);
  try {
    return call(directory, options["allow-network-fs"] === true);
  } catch (error) {
    if (owner !== null) error.message += `; this was done as uid ${owner.uid}, who owns the store`;
    throw error;
  }
}

function hasStore(directory) {
  try {
    return fs.statSync(path.join(directory, DATA_FILE)).isFile();
  } catch (error) {
    if (error.code === "ENOENT" || error.code === "ENOTDIR") return false;
    throw wrongUsage(`cannot look into ${directory}: ${reasonOf(error)}. Run this as the user of the app`);
  }
}

module.exports = { DATA_FILE, asOwner, findFiles, locateStore, openStore, ownerOfStore };
