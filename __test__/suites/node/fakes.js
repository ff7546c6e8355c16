// Fake timers, as the cases want them.

const TIMERS = ["setTimeout", "setInterval", "Date"];

/** Those of node:test. */
const fakeOfMock = (mock) => ({
  use: ({ now = Date.now(), serves = false } = {}) =>
    mock.timers.enable({ apis: serves ? TIMERS : [...TIMERS, "setImmediate"], now }),
  setTime: (time) => mock.timers.setTime(time),
  restore: () => mock.timers.reset(),
});

/** Those of sinon. */
function fakeOfSinon(sinon) {
  let clock;
  return {
    use: ({ now = Date.now(), serves = false } = {}) => {
      // The streams of the test runner need `nextTick`.
      clock = sinon.useFakeTimers({ now, toNotFake: serves ? ["nextTick", "setImmediate"] : ["nextTick"] });
    },
    setTime: (time) => clock.setSystemTime(time),
    restore: () => clock?.restore(),
  };
}

module.exports = { fakeOfMock, fakeOfSinon };
