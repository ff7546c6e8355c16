"use strict";

const { mock } = require("node:test");
const { until } = require("./redis/until.js");

const BREAK = 600_000;

/** Asserts that the only session of a ConnectStore was last used by each request, ten minutes after the one before. */
async function assertKnowsLastUse(store, request) {
  const now = Date.now.bind(Date);
  let ahead = 0;
  mock.method(Date, "now", () => now() + ahead);
  try {
    for (; ahead < 4 * BREAK; ahead += BREAK) {
      const at = Date.now();
      await request();
      const isKnown = async () => {
        const uses = [];
        for await (const { lastUsedAt } of store.sessions()) uses.push(lastUsedAt - at);
        return uses.length === 1 && uses[0] > -1500 && uses[0] < BREAK / 2;
      };
      // Frameworks may touch a session after the response.
      await until(isKnown, "the last use is known");
    }
  } finally {
    mock.restoreAll();
  }
}

module.exports = { assertKnowsLastUse };
