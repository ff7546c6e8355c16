"use strict";

const path = require("node:path");
const { withChildren } = require("../spawn.js");
const { sections } = require("./report.js");

const CHILD = path.join(__dirname, "child.js");
const CALLS = 8000;

/**
 * Measures where the time of a call goes: `{ size, rows: { call, text, rounds }[] }`, in nanoseconds up to and
 * including a layer.
 */
async function run({ layerSize: size, layerRounds }, progress) {
  const use = async (child) => {
    progress("layers of a call", ": filling");
    const rows = (await child.call("open", { size })).map((row) => ({ ...row, rounds: [] }));
    // Round -1 is for the compiler.
    for (let round = -1; round < layerRounds; round++) {
      progress("layers of a call", `: round ${round + 1} of ${layerRounds}`);
      for (const { call, text, rounds } of rows) {
        const ns = await child.call("round", { call, text, calls: CALLS });
        if (round >= 0) rounds.push(ns);
      }
    }
    return rows;
  };
  return { size, rows: await withChildren(1, use, CHILD) };
}

/** It explains other figures, and has no targets. */
const judge = () => [];

module.exports = { run, sections, judge };
