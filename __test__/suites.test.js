"use strict";

// The package, as npm installs it, in test runners with fake timers. The cases are in `suites/cases`.

const assert = require("node:assert/strict");
const { spawnSync } = require("node:child_process");
const fs = require("node:fs");
const os = require("node:os");
const path = require("node:path");
const { after, before, describe, it } = require("node:test");
const { installPeers } = require("../bench/install.js");
const { copyPackage } = require("./support/package-copy.js");

const FOLDER = path.join(__dirname, "suites");
const bin = (name, file) => path.join(FOLDER, "node_modules", name, file);
const jest = (group, ...more) => [bin("jest", "bin/jest.js"), "--ci", ...more, `jest/${group}.test.js`];
const vitest = (group, pool) => [
  bin("vitest", "vitest.mjs"),
  "run",
  "--pool",
  pool,
  `vitest/${group}.test.mjs`,
];

// Express and supertest do not run in a browser, nor in the virtual machines of vitest.
const NO_REQUESTS = { WITHOUT_REQUESTS: "1" };

/** The command of each runner for the cases of a group, by name, and its environment. */
const RUNNERS = {
  "jest in Node": [(group) => jest(group, "--env", "node")],
  "jest in jsdom": [(group) => jest(group, "--env", "jsdom"), NO_REQUESTS],
  "jest with fake timers from the start": [(group) => jest(group, "--config", "jest.faked.config.js")],
  "vitest in threads": [(group) => vitest(group, "threads")],
  "vitest in forks": [(group) => vitest(group, "forks")],
  "vitest in vmThreads": [(group) => vitest(group, "vmThreads"), NO_REQUESTS],
  "node:test with mock timers": [(group) => ["--test", `node/${group}-mock.test.js`]],
  "node:test with sinon": [(group) => ["--test", `node/${group}-sinon.test.js`]],
};

const GROUPS = { connect: "ConnectStore", stores: "the stores" };

describe("in the runners of users", () => {
  const temporary = fs.mkdtempSync(path.join(os.tmpdir(), "native-store-suites-"));
  after(() => fs.rmSync(temporary, { recursive: true, force: true }));

  before(() => {
    const trials = Object.fromEntries(
      ["jest", "jest-environment-jsdom", "vitest", "sinon", "supertest"].map((name) => [
        name,
        `require.resolve("${name}/package.json")`,
      ]),
    );
    assert.deepEqual(
      installPeers(FOLDER, trials, () => console.log("installing test runners")),
      {},
    );
    copyPackage(FOLDER);
  });

  function passes(args, more) {
    // A runner must not report to the current test run.
    const { NODE_TEST_CONTEXT: _, ...env } = process.env;
    const { status, stdout, stderr } = spawnSync(process.execPath, args, {
      cwd: FOLDER,
      env: { ...env, ...more, NO_COLOR: "1", TMPDIR: temporary },
      encoding: "utf8",
    });
    assert.equal(status, 0, `${stdout}\n${stderr}`);
  }

  for (const [group, title] of Object.entries(GROUPS)) {
    for (const [runner, [argumentsOf, more]] of Object.entries(RUNNERS)) {
      it(`${title} pass: ${runner}`, () => passes(argumentsOf(group), more));
    }
  }

  it("sessions of several versions of @fastify/session pass", () => {
    passes(["--test", "node/fastify-sessions.test.js"]);
  });
});
