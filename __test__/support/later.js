"use strict";

/** Until the test ends, what a ConnectStore has met was longer ago. The sessions get no older by it. */
function later(t, millis) {
  const now = performance.now.bind(performance);
  t.mock.method(performance, "now", () => now() + millis);
}

module.exports = { later };
