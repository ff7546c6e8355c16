"use strict";

const { setup } = require("./setup");

try {
  setup(3);
} catch (error) {
  console.error(`\n${error.message}`);
  process.exit(1);
}

console.log("[3/3] starting the example");
require("../examples/login/server");
