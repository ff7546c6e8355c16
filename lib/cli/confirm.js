"use strict";

const readline = require("node:readline");
const { EXIT, Failure, wrongUsage } = require("./failures.js");

/** Asks at the terminal. Resolves to whether the answer is yes, or to `undefined` without a terminal. */
async function confirm(task, question) {
  const input = process.stdin;
  if (!input.isTTY || !task.stderr.isTTY) return undefined;
  const lines = readline.createInterface({ input, output: task.stderr, terminal: false });
  try {
    task.stderr.write(`${question} [y/N] `);
    const answer = new Promise((resolve) => {
      lines.once("line", resolve);
      // The end of the input does not mean yes.
      lines.once("close", () => resolve(""));
    });
    return /^y(es)?$/i.test((await task.interruptible(answer)).trim());
  } finally {
    lines.close();
  }
}

/** Fails the command unless the answer at the terminal is yes. */
async function requireYes(task, question) {
  const answer = await confirm(task, question);
  if (answer === undefined) {
    throw wrongUsage("nothing was changed: there is no terminal to ask at, and --yes was not given");
  }
  if (!answer) throw new Failure(EXIT.no, "nothing was changed");
}

module.exports = { requireYes };
