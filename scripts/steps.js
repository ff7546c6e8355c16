"use strict";

// Runs the steps of `npm test`: commands that must succeed, one after the other or in lanes side by side.
const { spawn } = require("node:child_process");
const { ROOT } = require("./sources");

/**
 * Runs a command, and resolves to its exit code and its standard output, which `print` gets too. Its messages of progress
 * go where those of this process go, or to `print`.
 */
function run({ command, args }, print, isLive) {
  const stdio = ["ignore", "pipe", isLive ? "inherit" : "pipe"];
  const child = spawn(command, args, { cwd: ROOT, stdio });
  let output = "";
  child.stdout.setEncoding("utf8").on("data", (text) => {
    output += text;
    print(text);
  });
  child.stderr?.setEncoding("utf8").on("data", print);
  return new Promise((resolve, reject) => {
    child.on("error", reject);
    child.on("close", (code) => resolve({ code: code ?? 1, output }));
  });
}

/** Runs steps one after the other, and stops at one that fails: `[{ step, code, output }]`. */
async function runLane(steps, print, isLive) {
  const results = [];
  for (const step of steps) {
    print(`\n${step.title} ...\n`);
    const result = { step, ...(await run(step, print, isLive)) };
    results.push(result);
    if (result.code !== 0) break;
  }
  return results;
}

/** Runs lanes of steps side by side. The first prints as it goes, each other one when all of it has ended. */
async function runLanes(lanes, print) {
  const all = lanes.map(async (steps, index) => {
    if (index === 0) return runLane(steps, print, true);
    let held = "";
    const results = await runLane(steps, (text) => {
      held += text;
    });
    return { results, held };
  });
  const [first, ...others] = await Promise.all(all);
  for (const { held } of others) print(held);
  return [first, ...others.map(({ results }) => results)].flat();
}

module.exports = { runLanes };
