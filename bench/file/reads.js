"use strict";

const path = require("node:path");
const { settleDisk } = require("../disk.js");
const { withChildren } = require("../spawn.js");
const { rotated } = require("../stats.js");

const CHILD = path.join(__dirname, "child.js");
const KINDS = ["file", "memory"];
const IN_FLIGHT = 256;

/**
 * Measures our stores with the same sessions in one run, in nanoseconds per get: `{ size, inFlight, rows: { kind,
 * rounds }[], during: { quiet, busy }[] }`. `during`: the FileStore during writes.
 */
function timeReads({ readSize: size, getRounds, createRounds, createSeconds: seconds }, directory, progress) {
  return withChildren(
    KINDS.length,
    async (...children) => {
      const childOf = (kind) => children[KINDS.indexOf(kind)];
      for (const kind of KINDS) {
        progress("reads", `: filling ${kind}`);
        await childOf(kind).call("openToRead", { kind, size, directory: path.join(directory, "reads") });
      }
      settleDisk();
      const rows = KINDS.map((kind) => ({ kind, rounds: [] }));
      // Round -1 is for the compiler.
      for (let round = -1; round < getRounds; round++) {
        progress("reads", `: round ${round + 1} of ${getRounds}`);
        for (const { kind, rounds } of rotated(rows, round)) {
          const each = await childOf(kind).call("read");
          if (round >= 0) rounds.push(each);
        }
      }
      const during = [];
      for (let round = 0; round < createRounds; round++) {
        progress("reads during writes", `: round ${round + 1} of ${createRounds}`);
        settleDisk();
        during.push(await childOf("file").call("readDuringCreates", { inFlight: IN_FLIGHT, seconds }));
      }
      return { size, inFlight: IN_FLIGHT, rows, during };
    },
    CHILD,
  );
}

module.exports = { timeReads };
