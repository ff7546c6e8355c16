"use strict";

const readline = require("node:readline");

/** Asks somebody at a terminal. Resolves whether the answer is yes; `undefined` where there is no terminal. */
async function confirm(task, question) {
  const input = process.stdin;
  if (!input.isTTY || !task.stderr.isTTY) return undefined;
  const lines = readline.createInterface({ input, output: task.stderr, terminal: false });
  try {
    task.stderr.write(`${question} [y/N] `);
    const answer = new Promise((resolve) => {
      lines.once("line", resolve);
      // The end of the input is no yes.
      lines.once("close", () => resolve(""));
    });
    return /^y(es)?$/i.test((await task.interruptible(answer)).trim());
  } finally {
    lines.close();
  }
}

module.exports = { confirm };
