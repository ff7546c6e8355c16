import { describe, it, vi } from "vitest";
import cases from "../cases/index.js";

const TIMERS = [
  "setTimeout",
  "setInterval",
  "clearTimeout",
  "clearInterval",
  "Date",
  "performance",
  "queueMicrotask",
];

const fake = {
  use: ({ now = Date.now(), serves = false } = {}) =>
    vi.useFakeTimers({ now, toFake: serves ? TIMERS : [...TIMERS, "setImmediate", "clearImmediate"] }),
  setTime: (time) => vi.setSystemTime(time),
  restore: () => vi.useRealTimers(),
};

cases.connectSuite({ describe, it, fake });
