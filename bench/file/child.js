"use strict";

// A process for one store.
const { serve } = require("../serve.js");
const { diskCost } = require("./measure/disk-cost.js");
const { churn, fill } = require("./measure/fill.js");
const { fullLoad } = require("./measure/full-load.js");
const gaps = require("./measure/gaps.js");
const log = require("./measure/log.js");
const { openTime } = require("./measure/open-time.js");
const reads = require("./measure/reads.js");
const rounds = require("./measure/rounds.js");

serve({ fill, churn, openTime, diskCost, fullLoad, ...rounds, ...reads, ...gaps, ...log });
