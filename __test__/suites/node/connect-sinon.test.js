const { describe, it } = require("node:test");
const sinon = require("sinon");
const { connectSuite } = require("../cases/index.js");

let clock;

const fake = {
  use: ({ now = Date.now(), serves = false } = {}) => {
    // The streams of the test runner need `nextTick`.
    clock = sinon.useFakeTimers({ now, toNotFake: serves ? ["nextTick", "setImmediate"] : ["nextTick"] });
  },
  setTime: (time) => clock.setSystemTime(time),
  restore: () => clock?.restore(),
};

connectSuite({ describe, it, fake });
