"use strict";

const fs = require("node:fs");
const { Failure, Interruption, reasonOf, wrongUsage } = require("../failures.js");
const { linesOf } = require("../lines.js");
const show = require("../show.js");
const { isDatabase } = require("./sqlite-file.js");

/**
 * Opens an export: every line must be a session. A line is `{ createdAt, session }`, or only the session in older
 * exports.
 */
function open(task) {
  const { stream, size } = openStream(task.operand);
  task.defer(() => stream.destroy());
  // The stream may be waiting for a line that never comes.
  task.signal.addEventListener("abort", () => stream.destroy(new Interruption()));
  const unit = size ? show.bytes : (lines) => show.count(lines, "line");
  return { total: size, unit, entries: entriesOf(stream, size) };
}

async function* entriesOf(stream, size) {
  const decoder = new TextDecoder("utf-8", { fatal: true });
  let [number, bytes] = [0, 0];
  for await (const line of linesOf(stream)) {
    number++;
    bytes += line.length + 1;
    const read = size ? bytes : number;
    yield { name: `line ${number}`, bytes: line.length, read, ...parse(line, decoder) };
  }
}

function parse(line, decoder) {
  try {
    const text = decoder.decode(line);
    if (text.trim() === "") return {};
    return entryOf(JSON.parse(text));
  } catch {
    // Drop the error: its message shows a part of the session.
    return { fault: "not JSON in UTF-8" };
  }
}

function entryOf(line) {
  if (line === null) return { fault: "no session" };
  // A ConnectStore record has a `session` as well, but also a `sessionId`.
  if (!Object.hasOwn(line, "createdAt") || Object.hasOwn(line, "sessionId")) return { session: line };
  const { createdAt, session } = line;
  if (session === null || typeof session !== "object") return { fault: "no session" };
  if (createdAt === null) return { session };
  const time = typeof createdAt === "string" ? Date.parse(createdAt) : Number.NaN;
  if (Number.isNaN(time)) return { fault: "invalid: createdAt must be null or an ISO time" };
  return { session, createdAt: time };
}

function openStream(file) {
  if (file === undefined && process.stdin.isTTY) {
    throw wrongUsage("standard input is a terminal: name a file, or - to type the lines");
  }
  if (file === undefined || file === "-") return { stream: process.stdin };
  try {
    const fd = fs.openSync(file, "r");
    const stat = fs.fstatSync(fd);
    if (stat.isDirectory()) {
      throw wrongUsage(
        `cannot read ${file}: it is a directory; if it is that of session-file-store, add --from session-file-store`,
      );
    }
    if (stat.isFile() && isDatabase(fd)) {
      throw wrongUsage(
        `cannot read ${file}: it is an SQLite database; --from says of which package, such as --from connect-sqlite3`,
      );
    }
    return { stream: fs.createReadStream(file, { fd }), size: stat.size };
  } catch (error) {
    if (error instanceof Failure) throw error;
    throw wrongUsage(`cannot read ${file}: ${reasonOf(error)}`);
  }
}

module.exports = { open };
