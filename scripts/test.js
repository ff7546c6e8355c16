"use strict";

// `npm test`: runs all tests, on a fresh checkout too. With `--addon` it only runs the tests that need nothing but a
// built addon, for machines that did not build it themselves.
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

/** By default Node runs one file at a time on two cores, but many files mostly wait for servers and deadlines. */
const MAX_CONCURRENT_FILES = Math.max(3, os.availableParallelism());

const cargoTest = (title, args) => ({
  title,
  language: "Rust",
  command: "cargo",
  args: ["test", "--locked", ...args],
});

/** Passes the names of the files, because Node 20 takes no patterns. */
function javaScriptTests(without = []) {
  const files = fs.readdirSync(TESTS).filter((file) => file.endsWith(".test.js") && !without.includes(file));
  return {
    title: "JavaScript tests",
    language: "JavaScript",
    command: process.execPath,
    args: [
      "--test",
      `--test-concurrency=${MAX_CONCURRENT_FILES}`,
      "--test-reporter=spec",
      ...files.map((file) => path.join("__test__", file)),
    ],
  };
}

// One build for all: the binding, the core, and the tests that kill processes, which need the feature.
const RUST_TESTS = cargoTest("Rust tests", ["--features", "crash-points"]);

// Without the binding, because with it the crate has its own allocator.
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
 * Returns groups of lanes of steps. The lanes of a group run concurrently, so their steps must not depend on real time.
 * Cargo still compiles for one step at a time, and another step runs during that.
 */
function allTests() {
  // The simulator needs locks that only Linux has.
  const mutantLanes = process.platform === "linux" ? [[MUTANTS]] : [];
  return [[[RUST_TESTS]], [[ALLOCATIONS, SHUTTLE], ...mutantLanes], [[javaScriptTests()]]];
}

/** Numbers the titles of the steps: `[3/7] Rust tests`. */
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

/** Adds the skipped tests and groups of tests in the output to the counts by reason. */
function countSkipped(output, counts) {
  // The format in which the reporter `spec` prints skipped tests.
  for (const [, reason] of output.matchAll(/^\s*\ufe63 .+ \([\d.]+ms\) # (.+)$/gm)) {
    counts.set(reason, (counts.get(reason) ?? 0) + 1);
  }
}

/** Compiles the Rust tests without output, because cargo repeats its messages in the step that runs them. */
function compileRustTests() {
  const { command, args } = RUST_TESTS;
  const child = spawn(command, [...args, "--no-run"], { cwd: ROOT, stdio: "ignore" });
  const ended = new Promise((resolve) => child.on("error", resolve).on("close", resolve));
  return { ended, end: () => child.kill() };
}

/** Installs and builds what the tests need. Linking the addon takes one core, so another one compiles the tests. */
async function prepare(total) {
  if (addonIsCurrent()) return setup(total);
  const compilation = compileRustTests();
  try {
    setup(total);
    console.log("waiting for the compilation of the Rust tests ...");
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
  const skipped = new Map();
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
      countSkipped(output, skipped);
      cases += rustCases(output, properties) + javaScriptCases(output);
    }
  }
  console.log(
    `\nAll passed: ${passed.Rust} Rust tests, ${passed.JavaScript} JavaScript tests, ${cases} property cases`,
  );
  for (const [reason, count] of skipped)
    console.log(`Skipped: ${count} tests or groups of tests (${reason})`);
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
