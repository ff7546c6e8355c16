"use strict";

const { subscribe, unsubscribe } = require("node:diagnostics_channel");
const { metrics } = require("@opentelemetry/api");

/**
 * Counts the events of this thread's stores with the OpenTelemetry SDK of the app. Returns a function that stops it.
 */
function countStoreEvents() {
  const meter = metrics.getMeter("@fluidauth/native-store");
  const counter = (name, description) => meter.createCounter(`native_store.${name}`, { description });
  const ended = counter("sessions.ended", "Sessions that have ended, by reason");
  const dropped = counter("writes.dropped", "Saves of sessions that had ended");
  const errors = counter("errors", "Calls that failed by a fault of the store");
  const connections = counter("redis.connections", "Connections that were made and lost, and failovers");

  const hearing = {
    // `count` is null if the store does not know it.
    "session:end": ({ store, reason, count }) => ended.add(count ?? 1, { store: store.type, reason }),
    "write:dropped": ({ store, reason }) => dropped.add(1, { store: store.type, reason }),
    "store:error": ({ store, call, code, reason }) =>
      errors.add(1, { store: store.type, call, code, reason }),
    "redis:connect": ({ server }) => connections.add(1, { event: "connect", server }),
    "redis:disconnect": ({ server }) => connections.add(1, { event: "disconnect", server }),
    "redis:failover": ({ to }) => connections.add(1, { event: "failover", server: to }),
  };
  for (const [name, hear] of Object.entries(hearing)) subscribe(`native-store:${name}`, hear);
  return () => {
    for (const [name, hear] of Object.entries(hearing)) unsubscribe(`native-store:${name}`, hear);
  };
}

module.exports = { countStoreEvents };
