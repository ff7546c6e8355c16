"use strict";

// A process for one store.
const { serve } = require("../serve.js");
const { churn, fill } = require("./measure/fill.js");
const gaps = require("./measure/gaps.js");
const { openTime } = require("./measure/open-time.js");
const reads = require("./measure/reads.js");
const rounds = require("./measure/rounds.js");

serve({
  fill,
  churn,
  openTime,
  open: rounds.open,
  get: rounds.get,
  create: rounds.create,
  openToRead: reads.openToRead,
  read: reads.read,
  readDuringCreates: reads.readDuringCreates,
  gapOfCreates: gaps.gapOfCreates,
  gapOfClean: gaps.gapOfClean,
});
