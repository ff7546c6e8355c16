"use strict";

// The OpenTelemetry recipe in `docs/operating.md`, with a recording meter.

const assert = require("node:assert/strict");
const { after, before, describe, it } = require("node:test");
const { metrics } = require("@opentelemetry/api");
const { MemoryStore } = require("..");
const { countStoreEvents } = require("../examples/shared/telemetry.js");
const { session } = require("./conformance.js");
const { until } = require("./support/redis-servers.js");

describe("the counters for OpenTelemetry", () => {
  const added = [];
  before(() => {
    const createCounter = (name) => ({ add: (value, attributes) => added.push([name, value, attributes]) });
    metrics.setGlobalMeterProvider({ getMeter: () => ({ createCounter }) });
  });
  after(() => metrics.disable());

  it("count the events of a store, until they are stopped", async () => {
    const stop = countStoreEvents();
    const store = new MemoryStore({ maxBytes: 10_000, sweepInterval: 0 });
    const one = session();
    await store.create(one);
    await store.delete(one.sessionId);
    await assert.rejects(store.create(session({ data: "x".repeat(20_000) })));
    await store.create(session());
    await store.clear();
    await until(() => added.length === 3, "all is counted");
    const of = (name) => added.filter(([counter]) => counter === `native_store.${name}`);
    assert.deepEqual(
      of("sessions.ended")
        .map(([, value, { store: type, reason }]) => [value, type, reason])
        .sort(),
      [
        [1, "memory", "cleared"],
        [1, "memory", "deleted"],
      ],
    );
    const [[, value, { call, code }]] = of("errors");
    assert.deepEqual([value, call, code], [1, "create", "ERR_STORE_FULL"]);
    stop();
    await assert.rejects(store.create(session({ data: "x".repeat(20_000) })));
    assert.equal(added.length, 3);
    await store.close();
  });
});
