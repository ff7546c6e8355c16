"use strict";

// The process that `keeper.js` starts: `node keeper-process.js <partial> <destination>`. It exits when its input ends.

const fs = require("node:fs");
const { moveInto } = require("./move.js");

const [, , partial, destination] = process.argv;

// Ignore these signals: the command handles them, and then ends the input.
for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"]) process.on(signal, () => {});

let order = "";
process.stdin.setEncoding("utf8");
process.stdin.on("data", (text) => {
  order += text;
});
process.stdin.on("end", () => {
  try {
    if (order === "keep") moveInto(destination, partial);
    else fs.rmSync(partial, { recursive: true, force: true });
  } catch (error) {
    process.stderr.write(`${error.message}\n`);
    process.exitCode = 1;
  }
});
