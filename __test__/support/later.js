"use strict";

/** Makes the ids that a ConnectStore has seen older, until the test ends. The sessions do not age. */
function later(t, millis) {
  const now = performance.now.bind(performance);
  t.mock.method(performance, "now", () => now() + millis);
}

module.exports = { later };
