"use strict";

const { storeMetrics } = require("./metrics");

// Milliseconds. Less than the timeout of a load balancer.
const PING_TIMEOUT = 1000;

/**
 * The routes for operators: `/healthz` and `/metrics`. They need no session. A proxy should not expose them to the
 * Internet.
 */
function operations(store) {
  const metrics = storeMetrics(store);
  return {
    "/healthz": async () => {
      try {
        const millis = await store.ping({ timeout: PING_TIMEOUT });
        return { status: 200, type: "text/plain", text: `ok, in ${millis.toFixed(1)} ms\n` };
      } catch ({ code, reason = "", message }) {
        return { status: 503, type: "text/plain", text: `${code} ${reason}\n${message}\n` };
      }
    },
    "/metrics": async () => ({ status: 200, type: metrics.contentType, text: await metrics.text() }),
  };
}

module.exports = { operations };
