"use strict";

// Prints the predictions of the model, without measuring: `node bench/scale/print.js [--sessions <n>] [--content
// <bytes>]`.

const { parseArgs } = require("node:util");
const { CHOICES, COSTS } = require("./costs.js");
const { planTables } = require("./plan-tables.js");

const SESSIONS = [1e5, 1e7, 1e9];

const { values } = parseArgs({ options: { sessions: { type: "string" }, content: { type: "string" } } });
const sizes = values.sessions === undefined ? SESSIONS : values.sessions.split(",").map(Number);
const content = Number(values.content ?? CHOICES.content);
if (!sizes.every((size) => size >= 1)) {
  throw new Error(`--sessions must be numbers from 1 with commas between them; got ${values.sessions}`);
}
if (!(content >= 0)) throw new Error(`--content must be a number of bytes; got ${values.content}`);
for (const { title, body } of planTables(COSTS, CHOICES, sizes, content))
  console.log(`${title}\n\n${body}\n`);
