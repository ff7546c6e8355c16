/** The fake timers of jest, as the cases want them. */
const fakeOf = (jest) => ({
  use: ({ now = Date.now(), serves = false } = {}) =>
    jest.useFakeTimers({ now, doNotFake: serves ? ["nextTick", "setImmediate"] : [] }),
  setTime: (time) => jest.setSystemTime(time),
  restore: () => jest.useRealTimers(),
});

module.exports = { fakeOf };
