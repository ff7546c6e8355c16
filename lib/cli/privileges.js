"use strict";

const fs = require("node:fs");
const path = require("node:path");
const { EXIT, Failure, reasonOf, wrongUsage } = require("./failures.js");

const ROOT = 0;

/**
 * Returns the user that root must become before it opens the store: `{ uid, gid }`, or `null` if it may stay root.
 *
 * LMDB trusts the pages of its file. The owner of the store can write any page, and must not gain root's privileges
 * that way. The files that a command creates then belong to the app, too.
 */
function ownerOf(directory, dataFile) {
  if (process.geteuid?.() !== ROOT) return null;
  const data = lookAt(path.join(directory, dataFile), fs.lstatSync);
  // The owner of the folder can replace a file that root owns.
  const owner = data && data.uid !== ROOT ? data : nearestFolder(path.resolve(directory));
  return owner.uid === ROOT ? null : { uid: owner.uid, gid: owner.gid };
}

/** Returns the stats of the folder, or of the folder in which it would be created. */
function nearestFolder(directory) {
  return lookAt(directory, fs.statSync) ?? nearestFolder(path.dirname(directory));
}

function lookAt(file, stat) {
  try {
    return stat(file);
  } catch (error) {
    if (error.code === "ENOENT" || error.code === "ENOTDIR") return undefined;
    throw wrongUsage(`cannot look at ${file}: ${reasonOf(error)}`);
  }
}

/** Drops root's privileges and becomes a user. This cannot be undone. */
function become({ uid, gid }) {
  try {
    setGroups(uid, gid);
    process.setgid(gid);
    process.setuid(uid);
  } catch (error) {
    const reason = error.code ?? error.message;
    throw new Failure(
      EXIT.failed,
      `the store belongs to uid ${uid}, and root cannot become that user (${reason}): run this as the owner`,
    );
  }
}

function setGroups(uid, gid) {
  try {
    process.initgroups(uid, gid);
  } catch (error) {
    // In a container a user may have no name.
    if (error.code !== "ERR_UNKNOWN_CREDENTIAL") throw error;
    process.setgroups([gid]);
  }
}

module.exports = { become, ownerOf };
