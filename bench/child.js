"use strict";

// A process for one store.
const { longestGapOfChurn } = require("./gaps/churn.js");
const { longestGapOfCold } = require("./gaps/cold.js");
const { longestGapOfSweep } = require("./gaps/sweep.js");
const memory = require("./memory/measure.js");
const ops = require("./ops/measure.js");
const { serve } = require("./serve.js");

serve({
  open: ops.open,
  round: ops.round,
  bytesPerSession: memory.bytesPerSession,
  longestGapOfChurn,
  longestGapOfSweep,
  longestGapOfCold,
});
