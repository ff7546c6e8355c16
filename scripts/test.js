"use strict";

// `npm test`: everything, on a fresh checkout too. With `--addon` only what needs nothing but a built addon, for the
// machines that others built it for.
const { spawn } = require("node:child_process");
const fs = require("node:fs");
const os = require("node:os");
const path = require("node:path");
const { javaScriptCases, rustCases, rustProperties } = require("./property-cases");
const { addonIsCurrent, setup } = require("./setup");
const { runLanes } = require("./steps");

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

// All in one build: the binding, the core, and processes that are killed, which need the feature.
const RUST_TESTS = cargoTest("Rust tests", ["--features", "crash-points"]);

// With the binding the crate has an allocator of its own.
const ALLOCATIONS = cargoTest("Rust tests of allocations", [
  "--no-default-features",
  "--test",
  "memory_bytes",
]);

const SHUTTLE = cargoTest("Rust tests under the scheduler of shuttle", [
  "--no-default-features",
  "--features",
  "shuttle",
  "--test",
  "shuttle",
]);

const MUTANTS = {
  title: "Mutants that the simulator has to find",
  language: "Rust",
  command: process.execPath,
  args: ["scripts/simulate.js", "--common-mutants"],
};

/**
 * Groups of lanes of steps. Lanes run side by side, which only steps without a clock and a deadline may. Cargo still
 * compiles one after the other: while one compiles, another one runs.
 */
function allTests() {
  // The simulator needs locks that only Linux has.
  const beside = process.platform === "linux" ? [[MUTANTS]] : [];
  return [[[RUST_TESTS]], [[ALLOCATIONS, SHUTTLE], ...beside], [[javaScriptTests()]]];
}

/** Numbers the steps as in `[3/7] Rust tests`. */
function numbered(groups, before) {
  const total = before + groups.flat(2).length;
  let number = before;
  const numbering = (step) => ({ ...step, title: `[${++number}/${total}] ${step.title}` });
  return { total, groups: groups.map((lanes) => lanes.map((steps) => steps.map(numbering))) };
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

/** Compiles the Rust tests, and prints nothing: cargo repeats its messages in the step that runs them. */
function compileRustTests() {
  const { command, args } = RUST_TESTS;
  const child = spawn(command, [...args, "--no-run"], { cwd: ROOT, stdio: "ignore" });
  const ended = new Promise((resolve) => child.on("error", resolve).on("close", resolve));
  return { ended, end: () => child.kill() };
}

/** Installs and builds what the tests need. While the addon is linked, which takes one core, the other one compiles. */
async function prepare(total) {
  if (addonIsCurrent()) return setup(total);
  const compilation = compileRustTests();
  try {
    setup(total);
    console.log("compiling the Rust tests, begun before ...");
    await compilation.ended;
  } finally {
    compilation.end();
  }
}

async function main() {
  const onlyAddon = process.argv.includes("--addon");
  const steps = onlyAddon ? [[[javaScriptTests(NEED_MORE_THAN_THE_ADDON)]]] : allTests();
  const { total, groups } = numbered(steps, onlyAddon ? 0 : 2);
  if (!onlyAddon) await prepare(total);

  const passed = { Rust: 0, JavaScript: 0 };
  const leftOut = new Map();
  let cases = 0;
  const properties = rustProperties([path.join(ROOT, "src"), path.join(ROOT, "tests")]);
  for (const lanes of groups) {
    const results = await runLanes(lanes, (text) => process.stdout.write(text));
    const failed = results.find(({ code }) => code !== 0);
    if (failed) {
      console.error(`\n${failed.step.title}: failed`);
      return failed.code;
    }
    for (const { step, output } of results) {
      passed[step.language] += passedIn(output);
      countLeftOut(output, leftOut);
      cases += rustCases(output, properties) + javaScriptCases(output);
    }
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
