"use strict";

const { setup } = require("./setup");

const EXAMPLES = ["login", "passport", "fastify"];

const [example = "login"] = process.argv.slice(2);
if (!EXAMPLES.includes(example)) {
  console.error(`There is no example "${example}". Choose one: npm start -- ${EXAMPLES.join(" | ")}`);
  process.exit(1);
}

try {
  setup(3);
} catch (error) {
  console.error(`\n${error.message}`);
  process.exit(1);
}

console.log(`[3/3] starting the ${example} example`);
require(`../examples/${example}/server`);
