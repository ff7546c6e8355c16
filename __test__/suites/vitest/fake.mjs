const TIMERS = [
  "setTimeout",
  "setInterval",
  "clearTimeout",
  "clearInterval",
  "Date",
  "performance",
  "queueMicrotask",
];

/** The fake timers of vitest, as the cases want them. */
export const fakeOf = (vi) => ({
  use: ({ now = Date.now(), serves = false } = {}) =>
    vi.useFakeTimers({ now, toFake: serves ? TIMERS : [...TIMERS, "setImmediate", "clearImmediate"] }),
  setTime: (time) => vi.setSystemTime(time),
  restore: () => vi.useRealTimers(),
});
