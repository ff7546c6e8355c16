"use strict";

const assert = require("node:assert/strict");
const { execFile } = require("node:child_process");
const fs = require("node:fs");
const path = require("node:path");
const { before, describe, it } = require("node:test");
const { installPeers } = require("../bench/install.js");

const ROOT = path.join(__dirname, "..");
const TYPES = path.join(__dirname, "types");
const MODULES = path.join(ROOT, "node_modules");

const OLDEST = path.join(__dirname, "compilers");
const TSD = path.join(MODULES, "tsd/dist/cli.js");

const node16 = ["--module", "node16", "--moduleResolution", "node16"];
const bundler = ["--module", "esnext", "--moduleResolution", "bundler"];
const withNode = ["--types", "node"];
// Without Node's types and the newest JavaScript. (No compiler accepts an empty `--types` here.)
const bare = ["--typeRoots", ".", "--lib", "es2022"];

const DISPOSAL = "disposal.mts";
const ESM_AND_CJS = ["app.mts", "app.cts"];
const ESM = ["app.mts"];
const CONNECT = ["connect.mts", "connect.cts"];
const COMPILERS = [
  {
    title: "today's TypeScript",
    file: path.join(MODULES, "typescript/bin/tsc"),
    programs: [
      ["node16", [...node16, ...withNode], [...ESM_AND_CJS, DISPOSAL]],
      ["node16 with ES2022 alone", [...node16, ...bare], [...ESM_AND_CJS, DISPOSAL]],
      ["bundler", [...bundler, ...withNode], ESM],
      ["bundler with ES2022 alone", [...bundler, ...bare], ESM],
    ],
  },
  {
    title: "TypeScript 5, which tsd brings",
    file: path.join(MODULES, "@tsd/typescript/typescript/lib/tsc.js"),
    programs: [
      ["node16", [...node16, ...withNode], [...ESM_AND_CJS, DISPOSAL]],
      ["bundler with ES2022 alone", [...bundler, ...bare], [...ESM, DISPOSAL]],
    ],
  },
  {
    title: "TypeScript 5.0, the oldest",
    file: path.join(OLDEST, "node_modules/typescript/bin/tsc"),
    programs: [
      ["node16 with ES2022 alone", [...node16, ...bare], ESM_AND_CJS],
      ["bundler with ES2022 alone", [...bundler, ...bare], ESM],
    ],
    // The frameworks' typings need a newer compiler. ../package.test.js checks ours with it.
    more: ["--skipLibCheck", "true"],
  },
];

/** Runs a JavaScript file. Resolves to its exit code and its output. */
function run(file, args, cwd) {
  return new Promise((resolve) => {
    execFile(process.execPath, [file, ...args], { cwd }, (error, stdout, stderr) => {
      resolve({ code: error ? error.code : 0, output: stdout + stderr });
    });
  });
}

function compile(compiler, options, files) {
  const strict = [
    "--noEmit",
    "--strict",
    "--skipLibCheck",
    "false",
    "--target",
    "es2022",
    "--pretty",
    "false",
  ];
  return run(compiler, [...strict, ...options, "fluidauth.d.ts", ...files], TYPES);
}

before(() => {
  assert.deepEqual(
    installPeers(OLDEST, { typescript: 'require("typescript")' }, () => {}),
    {},
  );
});

for (const { title, file, programs, more = [] } of COMPILERS) {
  describe(`the typings, with ${title}`, () => {
    for (const [name, options, files] of programs) {
      it(`compile in a strict FluidAuth app: ${name}`, async () => {
        assert.deepEqual(await compile(file, [...options, ...more], files), { code: 0, output: "" });
      });
    }

    it("compile in a strict app on express-session and @fastify/session", async () => {
      const { code, output } = await compile(file, [...node16, ...withNode, ...more], CONNECT);
      assert.deepEqual({ code, output }, { code: 0, output: "" });
    });

    for (const [wrong, types] of [
      ["wrong.mts", bare],
      ["wrong-connect.mts", withNode],
    ]) {
      it(`refuse ${wrong}, exactly at the wrong lines`, async () => {
        const lines = fs.readFileSync(path.join(TYPES, wrong), "utf8").split("\n");
        const marked = lines.flatMap((line, index) => (line.endsWith("// wrong") ? [index + 1] : []));
        assert.ok(marked.length > 0);
        const { code, output } = await compile(file, [...node16, ...types, ...more], [wrong]);
        assert.notEqual(code, 0);
        const refused = [...output.matchAll(/^(\S+)\((\d+),\d+\): error/gm)];
        assert.deepEqual(new Set(refused.map(([, file]) => file)), new Set([wrong]), output);
        assert.deepEqual([...new Set(refused.map(([, , line]) => Number(line)))], marked, output);
      });
    }
  });
}

describe("the typings, with tsd", () => {
  it("match index.test-d.ts", async () => {
    assert.deepEqual(await run(TSD, [], ROOT), { code: 0, output: "" });
  });

  it("fail for a wrong expectation", async () => {
    const { code, output } = await run(TSD, ["--files", "__test__/types/wrong.mts"], ROOT);
    assert.equal(code, 1, output);
  });
});
