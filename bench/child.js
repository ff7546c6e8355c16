"use strict";

// A process for one store: it does what its parent asks, one thing at a time.
const gaps = require("./measure/gaps.js");
const memory = require("./measure/memory.js");
const ops = require("./measure/ops.js");

const TASKS = {
  open: ops.open,
  round: ops.round,
  bytesPerSession: memory.bytesPerSession,
  longestGap: gaps.longestGap,
};

process.on("message", async ({ task, args }) => {
  try {
    process.send({ result: await TASKS[task](args) });
  } catch (error) {
    process.send({ error: error.stack });
  }
});
process.on("disconnect", () => process.exit());
