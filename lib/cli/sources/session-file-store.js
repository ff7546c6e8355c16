"use strict";

const fs = require("node:fs");
const path = require("node:path");
const { promisify } = require("node:util");
const { EXIT, Failure, reasonOf, wrongUsage } = require("../failures.js");
const { ConnectSessions } = require("./connect-sessions.js");
const { Fault, entryOf } = require("./fault.js");
const { readTtl } = require("./ttl.js");

// The default of session-file-store, in milliseconds.
const DEFAULT_TTL = 3_600_000;
const DEFAULT_EXTENSION = ".json";

const MOST_READS = 32;
// Twice as fast as the function of `fs.promises`.
const readFile = promisify(fs.readFile);

/** Opens a folder of session-file-store, which has a file for each session. */
async function open(task) {
  const { operand: folder, options } = task;
  const sessions = new ConnectSessions(options);
  const ttl = readTtl(options) ?? DEFAULT_TTL;
  const { extension = DEFAULT_EXTENSION } = options;
  const total = await task.interruptible(countSessions(folder, extension));
  const readSession = (name) =>
    entryOf(name, async () => {
      const text = await textOf(path.join(folder, name));
      if (text === null) return {};
      const sid = name.slice(0, name.length - extension.length);
      return sessions.read(sid, text, (session) => endOf(session, ttl));
    });
  return {
    noun: "file",
    folder,
    total,
    entries: inOrder(sessionFiles(folder, extension), readSession),
    check: () => checkReadable(folder),
  };
}

/** The end by session-file-store's rule, which ignores the expiry in the cookie. */
function endOf({ cookie: { originalMaxAge }, __lastAccess: lastAccess }, ttl) {
  if (typeof lastAccess !== "number") throw new Fault("without the __lastAccess of session-file-store");
  return lastAccess + (typeof originalMaxAge === "number" && originalMaxAge !== 0 ? originalMaxAge : ttl);
}

/** Counts the files to read. Throws if the folder does not look like one of session-file-store. */
async function countSessions(folder, extension) {
  const counts = { sessions: 0, dotted: 0, others: 0 };
  try {
    for await (const name of namesOfFiles(folder)) {
      if (!isSession(name, extension)) counts.others++;
      else if (extension !== "" && name.endsWith(`.${extension}`)) counts.dotted++;
      else counts.sessions++;
    }
  } catch (error) {
    throw wrongUsage(`cannot read ${folder}: ${reasonOf(error)}`);
  }
  // The ids would end in a dot, and no cookie would match them.
  if (counts.dotted > 0) throw wrongUsage(`--extension must have its dot: .${extension}`);
  if (counts.sessions === 0 && counts.others > 0) {
    throw wrongUsage(
      `${folder} has no file whose name ends in ${extension}: is it the folder of session-file-store? --extension ` +
        "names another fileExtension",
    );
  }
  return counts.sessions;
}

/** Checks that the files are readable. They are opened later, when root may have become the owner of the store. */
function checkReadable(folder) {
  try {
    fs.accessSync(folder, fs.constants.R_OK | fs.constants.X_OK);
  } catch (error) {
    throw wrongUsage(`cannot read ${folder} as uid ${process.geteuid?.()}: ${reasonOf(error)}`);
  }
}

async function* sessionFiles(folder, extension) {
  try {
    for await (const name of namesOfFiles(folder)) if (isSession(name, extension)) yield name;
  } catch (error) {
    throw new Failure(EXIT.failed, `cannot read ${folder}: ${reasonOf(error)}`);
  }
}

async function* namesOfFiles(folder) {
  for await (const entry of await fs.promises.opendir(folder, { bufferSize: 256 })) {
    if (entry.isFile()) yield entry.name;
  }
}

function isSession(name, extension) {
  if (extension !== "") return name.endsWith(extension) && name !== extension;
  // A temporary file of write-file-atomic.
  return !/\.\d+$/.test(name);
}

/** Returns the text of a file, or `null` if it is gone: then its session has ended. */
async function textOf(file) {
  try {
    return await readFile(file, "utf8");
  } catch (error) {
    if (error.code === "ENOENT") return null;
    throw new Fault(`not to be read: ${reasonOf(error)}`);
  }
}

/** Yields the result of `read` for each name, in order, with a bounded number of concurrent reads. */
async function* inOrder(names, read) {
  const ahead = [];
  let done = 0;
  const next = async () => ({ ...(await ahead.shift()), read: ++done });
  for await (const name of names) {
    ahead.push(read(name));
    if (ahead.length === MOST_READS) yield next();
  }
  while (ahead.length > 0) yield next();
}

module.exports = { reads: "folder", options: ["ttl", "extension"], open };
