"use strict";

const fs = require("node:fs");
const path = require("node:path");
const { promisify } = require("node:util");
const { EXIT, Failure, reasonOf, wrongUsage } = require("../failures.js");
const { ConnectSessions } = require("./connect-sessions.js");
const { Fault, entryOf } = require("./fault.js");
const { readTtl } = require("./ttl.js");

// What session-file-store itself takes where it is given none.
const DEFAULT_TTL = 3_600_000;
const DEFAULT_EXTENSION = ".json";

const MOST_READS = 32;
// Twice as fast as that of fs.promises.
const readFile = promisify(fs.readFile);

/** The sessions in a folder of session-file-store, which has a file for each. */
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

/** As session-file-store has it: for it the expiry that is in the cookie counts for nothing. */
function endOf({ cookie: { originalMaxAge }, __lastAccess: lastAccess }, ttl) {
  if (typeof lastAccess !== "number") throw new Fault("without the __lastAccess of session-file-store");
  return lastAccess + (typeof originalMaxAge === "number" && originalMaxAge !== 0 ? originalMaxAge : ttl);
}

/** How many files there are to read. Throws for a folder that seems to be another's. */
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
  // The ids would end in the dot, and no cookie would find them.
  if (counts.dotted > 0) throw wrongUsage(`--extension must have its dot: .${extension}`);
  if (counts.sessions === 0 && counts.others > 0) {
    throw wrongUsage(
      `${folder} has no file whose name ends in ${extension}: is it the folder of session-file-store? --extension ` +
        "names another fileExtension",
    );
  }
  return counts.sessions;
}

/** The files are opened as they come, by then with the rights of the store's owner where root has become that. */
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
  // What write-file-atomic has not renamed yet.
  return !/\.\d+$/.test(name);
}

/** `null` for one that is gone: its session was ended meanwhile. */
async function textOf(file) {
  try {
    return await readFile(file, "utf8");
  } catch (error) {
    if (error.code === "ENOENT") return null;
    throw new Fault(`not to be read: ${reasonOf(error)}`);
  }
}

/** What `read` makes of each name, in their order, with a bounded number of reads under way. */
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
