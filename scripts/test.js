"use strict";

// `npm test`: everything, on a fresh checkout too. With `--addon` only what needs nothing but a built addon, for the
// machines that others built it for.
const { spawn } = require("node:child_process");
const fs = require("node:fs");
const os = require("node:os");
const path = require("node:path");
const { javaScriptCases, rustCases, rustProperties } = require("./property-cases");
const { setup } = require("./setup");

const ROOT = path.join(__dirname, "..");
const TESTS = path.join(ROOT, "__test__");
const NEED_MORE_THAN_THE_ADDON = [
  "bundlers.test.js",
  "example.test.js",
  "example-fastify.test.js",
  "example-minimal.test.js",
  "example-passport.test.js",
  "example-redis.test.js",
  "hover.test.js",
  "package.test.js",
  "site.test.js",
  "snippets.test.js",
  "suites.test.js",
  "types.test.js",
];

/** By default Node runs one file at a time on two cores. Many of them wait for servers and deadlines most of the time. */
const FILES_AT_ONCE = Math.max(3, os.availableParallelism());

const cargoTest = (title, args) => ({
  title,
  language: "Rust",
  command: "cargo",
  args: ["test", "--locked", ...args],
});

/** Node 20 takes no patterns, hence the names. */
function javaScriptTests(without = []) {
  const files = fs.readdirSync(TESTS).filter((file) => file.endsWith(".test.js") && !without.includes(file));
  return {
    title: "JavaScript tests",
    language: "JavaScript",
    command: process.execPath,
    args: [
      "--test",
      `--test-concurrency=${FILES_AT_ONCE}`,
      "--test-reporter=spec",
      ...files.map((file) => path.join("__test__", file)),
    ],
  };
}

function allTests() {
  const steps = [
    // All in one build: the binding, the core, and processes that are killed, which need the feature.
    cargoTest("Rust tests", ["--features", "crash-points"]),
    // With the binding the crate has an allocator of its own.
    cargoTest("Rust tests of allocations", ["--no-default-features", "--test", "memory_bytes"]),
  ];
  // The simulator needs locks that only Linux has.
  if (process.platform === "linux") {
    steps.push({
      title: "Mutants that the simulator has to find",
      language: "Rust",
      command: process.execPath,
      args: ["scripts/simulate.js", "--common-mutants"],
    });
  }
  steps.push(
    cargoTest("Rust tests under the scheduler of shuttle", [
      "--no-default-features",
      "--features",
      "shuttle",
      "--test",
      "shuttle",
    ]),
  );
  return [...steps, javaScriptTests()];
}

/** Runs a step, and resolves to what it printed besides its messages of progress. */
function run({ command, args }) {
  const child = spawn(command, args, { cwd: ROOT, stdio: ["ignore", "pipe", "inherit"] });
  let output = "";
  child.stdout.setEncoding("utf8").on("data", (text) => {
    output += text;
    process.stdout.write(text);
  });
  return new Promise((resolve, reject) => {
    child.on("error", reject);
    child.on("close", (code) => resolve({ code: code ?? 1, output }));
  });
}

function passedIn(output) {
  const counts = [...output.matchAll(/^test result: ok\. (\d+) passed|^\S+ pass (\d+)$/gm)];
  return counts.reduce((sum, [, rust, javaScript]) => sum + Number(rust ?? javaScript), 0);
}

/** What was left out, by the reason: how many tests, and groups of tests. */
function countLeftOut(output, counts) {
  // As the reporter `spec` shows what is skipped.
  for (const [, reason] of output.matchAll(/^\s*\ufe63 .+ \([\d.]+ms\) # (.+)$/gm)) {
    counts.set(reason, (counts.get(reason) ?? 0) + 1);
  }
}

async function main() {
  const onlyAddon = process.argv.includes("--addon");
  const steps = onlyAddon ? [javaScriptTests(NEED_MORE_THAN_THE_ADDON)] : allTests();
  const total = onlyAddon ? 1 : steps.length + 2;
  if (!onlyAddon) setup(total);

  const passed = { Rust: 0, JavaScript: 0 };
  const leftOut = new Map();
  let cases = 0;
  const properties = rustProperties([path.join(ROOT, "src"), path.join(ROOT, "tests")]);
  for (const [index, step] of steps.entries()) {
    console.log(`\n[${total - steps.length + index + 1}/${total}] ${step.title} ...`);
    const { code, output } = await run(step);
    if (code !== 0) {
      console.error(`\n${step.title}: failed`);
      return code;
    }
    passed[step.language] += passedIn(output);
    countLeftOut(output, leftOut);
    cases += rustCases(output, properties) + javaScriptCases(output);
  }
  console.log(
    `\nAll passed: ${passed.Rust} Rust tests, ${passed.JavaScript} JavaScript tests, ${cases} property cases`,
  );
  for (const [reason, count] of leftOut)
    console.log(`Left out: ${count} tests or groups of them (${reason})`);
  return 0;
}

main().then(
  (code) => {
    process.exitCode = code;
  },
  (error) => {
    console.error(`\n${error.message}`);
    process.exitCode = 1;
  },
);
