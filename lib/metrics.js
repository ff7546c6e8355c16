"use strict";

// Import it at load: tests with fake timers replace the method of the global one.
const { performance } = require("node:perf_hooks");

const now = performance.now.bind(performance);

/** The names of the counted calls. The index is the kind. */
const KINDS = [
  "get",
  "create",
  "update",
  "touch",
  "delete",
  "clean",
  "getByUser",
  "deleteByUser",
  "size",
  "ids",
  "sessions",
  "clear",
  "ping",
];
const KIND = Object.freeze(Object.fromEntries(KINDS.map((name, kind) => [name, kind])));

/** The upper bounds of the latency buckets, in milliseconds. */
const LATENCY_BOUNDS = Object.freeze([
  0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 25, 50, 100, 250, 500, 1000, 2500,
]);

// Reading the clock twice costs a third of a read in memory.
const SAMPLE = 64;

/**
 * Counts the calls of one store object, their errors and their latency. The addon keeps this object, so it must not
 * reference the store.
 */
class Metrics {
  #counts = new Float64Array(KINDS.length);
  // By kind: 0 to measure each call, or `SAMPLE - 1` to sample.
  #masks = new Int32Array(KINDS.length);
  #errors = KINDS.map(() => new Map());
  #latencies = KINDS.map(() => new Latency());
  #events;

  /**
   * @param {number[]} sampled The kinds that mostly complete synchronously. One in `SAMPLE` of these calls is measured.
   */
  constructor(sampled) {
    for (const kind of sampled) this.#masks[kind] = SAMPLE - 1;
  }

  /** Sets the `Events` that publish the errors of calls. */
  reportTo(events) {
    this.#events = events;
  }

  /** Counts a call. Returns its start time, or 0 if it is not measured. */
  start(kind) {
    const before = this.#counts[kind]++;
    return (before & this.#masks[kind]) === 0 ? now() : 0;
  }

  /** Records the latency of a measured call. `startedAt` is not 0. */
  end(kind, startedAt) {
    this.#latencies[kind].add(now() - startedAt);
  }

  /** Counts a call that was rejected with a `SessionStoreError`. */
  fail(kind, error) {
    const errors = this.#errors[kind];
    errors.set(error.code, (errors.get(error.code) ?? 0) + 1);
    this.#events.failed(KINDS[kind], error);
  }

  /** Returns the part of `stats()` about calls. */
  report() {
    const calls = {};
    const errors = {};
    for (const [kind, name] of KINDS.entries()) {
      const ofKind = Object.fromEntries(this.#errors[kind]);
      for (const code of Object.keys(ofKind)) errors[code] = (errors[code] ?? 0) + ofKind[code];
      calls[name] = {
        count: this.#counts[kind],
        errors: ofKind,
        latency: this.#latencies[kind].report(),
      };
    }
    return { calls, errors };
  }
}

/** The latency histogram of one kind of call. */
class Latency {
  #counts = new Float64Array(LATENCY_BOUNDS.length + 1);
  #sum = 0;

  add(millis) {
    this.#sum += millis;
    let bucket = 0;
    while (bucket < LATENCY_BOUNDS.length && millis > LATENCY_BOUNDS[bucket]) bucket++;
    this.#counts[bucket]++;
  }

  report() {
    let count = 0;
    const buckets = LATENCY_BOUNDS.map((le, bucket) => {
      count += this.#counts[bucket];
      return { le, count };
    });
    return { count: count + this.#counts[LATENCY_BOUNDS.length], sum: this.#sum, buckets };
  }
}

module.exports = { KIND, KINDS, Metrics, now };
