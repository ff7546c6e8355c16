const { describe, it, mock } = require("node:test");
const { connectSuite } = require("../cases/index.js");

const TIMERS = ["setTimeout", "setInterval", "Date"];

const fake = {
  use: ({ now = Date.now(), serves = false } = {}) =>
    mock.timers.enable({ apis: serves ? TIMERS : [...TIMERS, "setImmediate"], now }),
  setTime: (time) => mock.timers.setTime(time),
  restore: () => mock.timers.reset(),
};

connectSuite({ describe, it, fake });
