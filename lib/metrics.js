"use strict";

// From the module, and at load: a suite with fake timers replaces the global one's method.
const { performance } = require("node:perf_hooks");

const now = performance.now.bind(performance);

/** The calls that are counted, by the number under which a store counts them. */
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

/** The upper bounds of the buckets of a latency, in milliseconds. */
const LATENCY_BOUNDS = Object.freeze([
  0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 25, 50, 100, 250, 500, 1000, 2500,
]);

// Two looks at a clock take a third of the time of a read in memory.
const SAMPLE = 64;

/**
 * Counts the calls of one store object, their errors and how long they took. It knows nothing of the store, so that the
 * addon may keep it.
 */
class Metrics {
  #counts = new Float64Array(KINDS.length);
  // By kind: 0 if each call is measured, else `SAMPLE - 1`.
  #masks = new Int32Array(KINDS.length);
  #errors = KINDS.map(() => new Map());
  #latencies = KINDS.map(() => new Latency());
  #events;

  /** @param {number[]} sampled the kinds that mostly end at once. Of these one call in `SAMPLE` is measured. */
  constructor(sampled) {
    for (const kind of sampled) this.#masks[kind] = SAMPLE - 1;
  }

  /** Sets the `Events` that publish the errors of calls. */
  reportTo(events) {
    this.#events = events;
  }

  /** Counts a call that begins. Returns when it began, or 0 if it is not measured. */
  begin(kind) {
    const before = this.#counts[kind]++;
    return (before & this.#masks[kind]) === 0 ? now() : 0;
  }

  /** Notes that a call has ended that began at a time, which is not 0. */
  end(kind, begun) {
    this.#latencies[kind].add(now() - begun);
  }

  /** Notes that a call was rejected with a `SessionStoreError`. */
  fail(kind, error) {
    const errors = this.#errors[kind];
    errors.set(error.code, (errors.get(error.code) ?? 0) + 1);
    this.#events.failed(KINDS[kind], error);
  }

  /** What `stats()` gives of it. */
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

/** How long the measured calls of one kind took. */
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
