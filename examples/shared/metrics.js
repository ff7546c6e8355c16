"use strict";

const { Counter, Gauge, Registry } = require("prom-client");

const perCall = (read) => (stats) =>
  Object.entries(stats.calls).flatMap(([call, ofCall]) =>
    read(ofCall).map(([labels, value]) => [{ call, ...labels }, value]),
  );
const one = (read) => (stats) => {
  const value = read(stats);
  return value === undefined || value === null ? [] : [[{}, value]];
};

// By name: the kind of metric, its labels, its help text, and its values from `stats()`. A store exports the metrics
// that it has values for.
const METRICS = {
  calls_total: [Counter, ["call"], "Calls made", perCall(({ count }) => [[{}, count]])],
  call_errors_total: [
    Counter,
    ["call", "code"],
    "Calls rejected",
    perCall(({ errors }) => Object.entries(errors).map(([code, count]) => [{ code }, count])),
  ],
  // A Prometheus histogram. The store has already counted the buckets.
  call_duration_seconds_bucket: [
    Counter,
    ["call", "le"],
    "Calls measured that took at most le",
    perCall(({ latency: { buckets, count } }) => [
      ...buckets.map((bucket) => [{ le: bucket.le / 1000 }, bucket.count]),
      [{ le: "+Inf" }, count],
    ]),
  ],
  call_duration_seconds_sum: [
    Counter,
    ["call"],
    "What they took",
    perCall(({ latency }) => [[{}, latency.sum / 1000]]),
  ],
  call_duration_seconds_count: [
    Counter,
    ["call"],
    "Calls measured",
    perCall(({ latency }) => [[{}, latency.count]]),
  ],
  ready: [Gauge, [], "1 if the store is ready", one(({ state }) => Number(state === "ready"))],
  pending_calls: [Gauge, [], "Calls that wait", one(({ pending }) => pending)],
  hits_total: [Counter, [], "get found a session", one(({ hits }) => hits)],
  misses_total: [Counter, [], "get found none", one(({ misses }) => misses)],
  created_total: [Counter, [], "Sessions created", one(({ created }) => created)],
  expired_total: [Counter, [], "Expired sessions removed", one(({ expired }) => expired)],
  evicted_total: [Counter, [], "Sessions ended to make room", one(({ evicted }) => evicted)],
  last_sweep_timestamp_seconds: [
    Gauge,
    [],
    "When the last sweep started",
    one(({ lastSweep }) => lastSweep && lastSweep.at.getTime() / 1000),
  ],
  last_sweep_seconds: [
    Gauge,
    [],
    "How long it took",
    one(({ lastSweep }) => lastSweep && lastSweep.duration / 1000),
  ],
  // Only MemoryStore and FileStore.
  sessions: [Gauge, [], "Sessions held", one(({ sessions }) => sessions)],
  bytes: [Gauge, [], "Bytes that they take", one(({ bytes }) => bytes)],
  //   // Only FileStore.
  file_bytes: [Gauge, [], "Bytes of the data file", one(({ fileBytes }) => fileBytes)],
  log_used_bytes: [Gauge, [], "Bytes in the redo log", one(({ log }) => log?.usedBytes)],
  log_size_bytes: [Gauge, [], "Bytes that it can hold", one(({ log }) => log?.sizeBytes)],
  queue_bytes: [Gauge, [], "Bytes that wait for the disk", one(({ queuedBytes }) => queuedBytes)],
  queue_limit_bytes: [Gauge, [], "The limit of these", one(({ maxQueuedBytes }) => maxQueuedBytes)],
  //   // Only RedisStore.
  connects_total: [Counter, [], "Connections made", one(({ connections }) => connections?.connects)],
  disconnects_total: [Counter, [], "Connections lost", one(({ connections }) => connections?.disconnects)],
  connect_failures_total: [
    Counter,
    [],
    "Attempts that failed",
    one(({ connections }) => connections?.failures),
  ],
  retries_total: [Counter, [], "Requests sent again", one(({ connections }) => connections?.retries)],
};

/** Returns the metrics of a store for Prometheus: `text()` for the body of `/metrics`, and its `contentType`. */
function storeMetrics(store) {
  const registry = new Registry();
  const { type } = store.db;
  const all = Object.entries(METRICS).map(([name, [Metric, labels, help, read]]) => {
    const labelNames = ["store", ...labels];
    return {
      read,
      metric: new Metric({ name: `native_store_${name}`, help, labelNames, registers: [registry] }),
    };
  });
  return {
    contentType: registry.contentType,
    async text() {
      const stats = await store.stats();
      for (const { metric, read } of all) {
        metric.reset();
        for (const [labels, value] of read(stats)) metric.inc({ store: type, ...labels }, value);
      }
      return registry.metrics();
    },
  };
}

module.exports = { storeMetrics };
