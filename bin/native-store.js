#!/usr/bin/env node
"use strict";

const { faultOfNode } = require("../lib/node-version.js");

const fault = faultOfNode();
if (fault === undefined) {
  require("../lib/cli/main.js").main(process.argv.slice(2));
} else {
  process.stderr.write(`native-store: ${fault}\n`);
  process.exitCode = 3;
}
