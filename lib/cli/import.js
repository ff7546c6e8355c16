"use strict";

const fs = require("node:fs");
const { EXIT, Failure, Interruption, reasonOf, wrongUsage } = require("./failures.js");
const { Importer } = require("./importer.js");
const { linesOf } = require("./lines.js");
const show = require("./show.js");

// Of the app's limits this knows nothing: what was once a session may be one again.
const LARGEST_SESSION = 2 ** 30;

async function run(task) {
  const source = openSource(task.operand);
  task.defer(() => source.stream.destroy());
  const how = { isCreated: task.options.create, hint: "; import --create makes one" };
  const store = task.openStore(how, { maxSessionBytes: LARGEST_SESSION });
  const importer = new Importer(store, { isReplacing: task.options.replace });
  const progress = task.progress("import", source.size ? show.bytes : (lines) => show.count(lines, "line"));

  try {
    await readAll(task, source, importer, progress);
  } catch (error) {
    await importer.settle();
    throw withReport(importer.failure ?? error, importer);
  }
  task.note(importer.report());
}

async function readAll(task, { stream, size }, importer, progress) {
  task.signal.addEventListener("abort", () => stream.destroy(new Interruption()));
  let [number, read] = [0, 0];
  for await (const line of linesOf(stream)) {
    await importer.take(line, ++number);
    read += line.length + 1;
    progress.at(size ? read : number, size);
  }
  task.throwIfInterrupted();
  await importer.settle();
  if (importer.failure) throw importer.failure;
}

/** The same failure, with what has been imported: nobody should have to guess. */
function withReport(error, importer) {
  const end = `stopped after ${importer.report()}`;
  if (error instanceof Interruption) return new Interruption(end);
  const code = error.code ? ` (${error.code})` : "";
  return new Failure(error.exitCode ?? EXIT.failed, `${error.message}${code}; ${end}`);
}

function openSource(file) {
  if (file === undefined && process.stdin.isTTY) {
    throw wrongUsage("standard input is a terminal: name a file, or - to type the lines");
  }
  if (file === undefined || file === "-") return { stream: process.stdin };
  try {
    const fd = fs.openSync(file, "r");
    const stat = fs.fstatSync(fd);
    if (stat.isDirectory()) throw wrongUsage(`cannot read ${file}: it is a directory`);
    return { stream: fs.createReadStream(file, { fd }), size: stat.size };
  } catch (error) {
    if (error instanceof Failure) throw error;
    throw wrongUsage(`cannot read ${file}: ${reasonOf(error)}`);
  }
}

module.exports = {
  summary: "creates the sessions of an export",
  usage: ["[file] [--replace] [--create]"],
  about: [
    "Reads lines of JSON as export writes them, from standard input where no file is given, or -. Sessions that have " +
      "expired are skipped, and so are those whose id is there already; the numbers are told at the end.",
    "A line that is no session stops it: the number of the line is told, and how many sessions were imported. Every " +
      "good line before it is in the store; so may be some of those after it. To mend the line and import again is " +
      "safe, as what is there is skipped.",
    "The limits that the app gives its FileStore, such as maxSessionsPerUser, are not applied.",
  ],
  operand: { name: "file" },
  options: {
    replace: { help: "updates the sessions whose id is there, rather than skip them" },
    create: { help: "makes the store if there is none" },
  },
  run,
};
