"use strict";

/** How a store sweeps. */
const howOf = ({ store, inBackground }) =>
  inBackground ? "background sweep" : store === "memorystore" ? "prune()" : "clean()";

module.exports = { howOf };
