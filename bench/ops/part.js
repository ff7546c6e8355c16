"use strict";

const { SHAPES, SHAPE_NAMES, shapeLabel } = require("../shapes.js");
const { withChildren } = require("../spawn.js");
const { count, rotated } = require("../stats.js");
const { charts } = require("./charts.js");
const { OPS_OF_TURNS } = require("./measure.js");
const { sections } = require("./report.js");
const { judge } = require("./targets.js");

/**
 * Measures nanoseconds per call: `{ shape, size, op, store, rounds }[]`. Each store has a process, which is filled
 * once. They take turns, so that disturbances of the machine affect all of them, and the order rotates.
 */
async function run({ sizes, rounds, callShare: share }, progress) {
  const rows = [];
  for (const shape of SHAPE_NAMES) {
    for (const size of sizes[shape]) rows.push(...(await runSize({ shape, size, rounds, share }, progress)));
  }
  return rows;
}

function runSize({ shape, size, rounds, share }, progress) {
  const { stores } = SHAPES[shape];
  const title = `calls, ${count(size)} sessions of ${shapeLabel(shape)}`;
  return withChildren(stores.length, async (...children) => {
    for (const [at, store] of stores.entries()) {
      progress(title, `: filling ${store}`);
      await children[at].call("open", { store, shape, size });
    }
    const rows = OPS_OF_TURNS.flat().flatMap((op) =>
      stores.map((store) => ({ shape, size, op, store, rounds: [] })),
    );
    const add = (store, figures) => {
      for (const row of rows) if (row.store === store && row.op in figures) row.rounds.push(figures[row.op]);
    };
    // Round -1 is for the compiler.
    for (let round = -1; round < rounds; round++) {
      progress(title, `: round ${round + 1} of ${rounds}`);
      for (const turn of OPS_OF_TURNS.keys()) {
        for (const store of rotated(stores, round)) {
          const figures = await children[stores.indexOf(store)].call("round", { turn, share });
          if (round >= 0) add(store, figures);
        }
      }
    }
    return rows;
  });
}

module.exports = { run, sections, judge, charts };
