"use strict";

// What `keeper.js` starts: `node keeper-process.js <partial> <destination>`. It ends with its input.

const fs = require("node:fs");
const { moveInto } = require("./move.js");

const [, , partial, destination] = process.argv;

// They are for the command, which then ends the input.
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
