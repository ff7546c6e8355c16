"use strict";

const fs = require("node:fs");
const os = require("node:os");
const path = require("node:path");
const { Failure, reasonOf, wrongUsage } = require("../failures.js");

const MAGIC = Buffer.from("SQLite format 3\0");
// The offset of the two header bytes that say whether a database has a write-ahead log.
const MODE_AT = 18;
const [ROLLBACK, WAL] = [1, 2];

const UNFINISHED = "a transaction in it is not finished; stop the app, or start it once if it was killed";

/** Whether an open file is an SQLite database. */
function isDatabase(fd) {
  return headerOf(fd).subarray(0, MAGIC.length).equals(MAGIC);
}

function headerOf(fd) {
  const header = Buffer.alloc(MODE_AT + 2);
  fs.readSync(fd, header, 0, header.length, 0);
  return header;
}

/** Whether the database has a write-ahead log. Throws if it is not a database. */
function hasLog(file) {
  try {
    return withOpen(file, "r", (fd) => {
      const stat = fs.fstatSync(fd);
      if (stat.isDirectory())
        throw wrongUsage(`cannot read ${file}: it is a directory, not an SQLite database`);
      if (!stat.isFile() || !isDatabase(fd))
        throw wrongUsage(`cannot read ${file}: it is not an SQLite database`);
      return headerOf(fd)[MODE_AT] === WAL;
    });
  } catch (error) {
    if (error instanceof Failure) throw error;
    throw wrongUsage(`cannot read ${file}: ${reasonOf(error)}`);
  }
}

/**
 * Returns a path that can be opened read-only without creating files next to the database: the database itself, or a
 * private copy that is removed when the task ends.
 *
 * Opening a database with a write-ahead log creates its `-wal` and `-shm` files if they are missing, and a read-only
 * connection leaves them behind. If a running app has created them, the database is read in place, because only
 * SQLite's locks determine which data is valid.
 * @param {{ name: string, isLocked: boolean }} driver
 */
async function readablePath(task, given, { name, isLocked }) {
  const refuse = (reason) => wrongUsage(`cannot read ${given}: ${reason}`);
  const hasItsLog = hasLog(given);
  // The other files of a database are next to the file itself, not next to a link.
  const file = fs.realpathSync(given);
  const isInUse = hasItsLog && fs.existsSync(`${file}-shm`);
  if (isLocked && (isInUse || !hasItsLog)) return file;
  if (isUnfinished(file)) throw refuse(UNFINISHED);
  if (!isLocked && hasItsLog && sizeOf(`${file}-wal`) > 0) {
    throw refuse(`${name} reads no write-ahead log; npm install better-sqlite3 here`);
  }
  const before = stateOf(file);
  const target = await task.interruptible(copy(task, file)).catch((error) => {
    throw error.code ? refuse(`it must be copied first, and that failed: ${reasonOf(error)}`) : error;
  });
  if (stateOf(file) !== before) throw refuse("it changed during the import; stop the app first");
  return target;
}

async function copy(task, file) {
  const folder = fs.mkdtempSync(path.join(os.tmpdir(), "native-store-import-"));
  task.defer(() => fs.rmSync(folder, { recursive: true, force: true }));
  const target = path.join(folder, "copy");
  await fs.promises.copyFile(file, target);
  fs.chmodSync(target, 0o600);
  if (sizeOf(`${file}-wal`) > 0) await fs.promises.copyFile(`${file}-wal`, `${target}-wal`);
  else withOpen(target, "r+", (fd) => fs.writeSync(fd, Buffer.from([ROLLBACK, ROLLBACK]), 0, 2, MODE_AT));
  const { owner } = task;
  if (owner !== null) giveTo(owner, folder);
  return target;
}

/** The user that root becomes must be able to read and remove the copy. */
function giveTo({ uid, gid }, folder) {
  for (const name of fs.readdirSync(folder)) fs.chownSync(path.join(folder, name), uid, gid);
  fs.chownSync(folder, uid, gid);
}

/** Whether there may be a transaction to roll back. */
const isUnfinished = (file) => sizeOf(`${file}-journal`) > 0;

/** Returns a value that changes when the database does. */
function stateOf(file) {
  const states = ["", "-wal", "-journal"].map((suffix) => {
    const stat = fs.statSync(`${file}${suffix}`, { throwIfNoEntry: false });
    return stat ? `${stat.size}@${stat.mtimeMs}` : "";
  });
  return states.join();
}

const sizeOf = (file) => fs.statSync(file, { throwIfNoEntry: false })?.size ?? 0;

function withOpen(file, flags, work) {
  const fd = fs.openSync(file, flags);
  try {
    return work(fd);
  } finally {
    fs.closeSync(fd);
  }
}

module.exports = { UNFINISHED, isDatabase, isUnfinished, readablePath };
