"use strict";

const { storeMetrics } = require("./metrics");

// Less than a load balancer waits.
const PATIENCE = 1000;

/**
 * What operators ask an app for: `/healthz` and `/metrics`. They need no session. Let nobody reach them from outside: a
 * proxy should not pass them on.
 */
function operations(store) {
  const metrics = storeMetrics(store);
  return {
    "/healthz": async () => {
      try {
        const millis = await store.ping({ timeout: PATIENCE });
        return { status: 200, type: "text/plain", text: `ok, in ${millis.toFixed(1)} ms\n` };
      } catch ({ code, reason = "", message }) {
        return { status: 503, type: "text/plain", text: `${code} ${reason}\n${message}\n` };
      }
    },
    "/metrics": async () => ({ status: 200, type: metrics.contentType, text: await metrics.text() }),
  };
}

module.exports = { operations };
