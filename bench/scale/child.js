"use strict";

// A process for one store.
const { openTime } = require("../file/measure/open-time.js");
const { serve } = require("../serve.js");
const { fillFile, measureFile, measureMemory } = require("./measure.js");
const { callRedis, fillRedis } = require("./redis-calls.js");

serve({ callRedis, fillFile, fillRedis, measureFile, measureMemory, openTime });
