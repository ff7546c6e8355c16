"use strict";

// A process for one store.
const gaps = require("./measure/gaps.js");
const memory = require("./measure/memory.js");
const ops = require("./measure/ops.js");
const { serve } = require("./serve.js");

serve({
  open: ops.open,
  round: ops.round,
  bytesPerSession: memory.bytesPerSession,
  longestGap: gaps.longestGap,
});
