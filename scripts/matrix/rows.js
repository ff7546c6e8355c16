"use strict";

// Runs rows of the table: an app with each store on a runtime, or the typings with a compiler.
const fs = require("node:fs");
const path = require("node:path");
const { ROOT } = require("../sources");
const { COLUMNS } = require("./report");
const { runtimeFor } = require("./runtimes");
const { runScenario } = require("./scenario");
const { run, versionIn } = require("./workshop");

const APPS = path.join(__dirname, "apps");
const TYPES = path.join(ROOT, "__test__/types");
const EXAMPLE = path.join(ROOT, "examples/typescript");

const FILES = { express: "express.mjs", fastify: "fastify.cjs" };
const STORES = COLUMNS.filter((column) => column !== "typings");
const STRICT = ["--noEmit", "--strict", "--target", "es2022", "--module", "node16"];

const skipped = (reason) => ({ outcome: "skipped", reason });
const same = (columns, cell) => Object.fromEntries(columns.map((column) => [column, cell]));

/** A cell: whether some work is done without an error, in how many seconds. */
async function timed(work) {
  const begun = Date.now();
  const end = (outcome, reason) => ({ outcome, seconds: (Date.now() - begun) / 1000, reason });
  try {
    await work();
    return end("passed");
  } catch (error) {
    return end("failed", error.message);
  }
}

class Matrix {
  #workshop;
  #platform;
  #redis;

  /**
   * @param {object} redis The server of the cells with `RedisStore`: `{ url }`, or why there is none: `{ missing }`.
   */
  constructor({ workshop, platform, redis }) {
    this.#workshop = workshop;
    this.#platform = platform;
    this.#redis = redis;
  }

  /** Runs a row. If something cannot be installed, all of its cells fail. */
  async run(row) {
    try {
      return { name: row.name, ...(await (row.typescript ? this.#compiler(row) : this.#app(row))) };
    } catch ({ message }) {
      const failed = { outcome: "failed", seconds: 0, reason: message };
      return { name: row.name, versions: "", cells: same(row.typescript ? ["typings"] : STORES, failed) };
    }
  }

  async #app({ app, packages, runtime }) {
    const on = await this.#runtime(runtime);
    if (on.missing) return { versions: on.title, cells: same(STORES, skipped(on.missing)) };
    const folder = await this.#workshop.install({ ...this.#workshop.own, ...packages });
    for (const file of fs.readdirSync(APPS)) fs.copyFileSync(path.join(APPS, file), path.join(folder, file));

    const versions = Object.keys(packages).map((name) => `${name} ${versionIn(folder, name)}`);
    const cells = {};
    for (const store of STORES) {
      const program = { command: on.command, args: [...on.args, FILES[app]], cwd: folder };
      cells[store] = await this.#cell(store, program, on.title);
    }
    return { versions: [on.title, ...versions].join(", "), cells };
  }

  async #cell(store, program, runtime) {
    if (store === "RedisStore" && this.#redis.missing) return skipped(this.#redis.missing);
    const folder = this.#workshop.folder();
    const env = {
      STORE: store,
      STORE_PATH: path.join(folder, "sessions"),
      STORE_URL: this.#redis.url,
      STORE_PREFIX: `${folder}:`,
      // Deno's own files go there as well.
      DENO_DIR: path.join(program.cwd, "deno"),
      DENO_NO_UPDATE_CHECK: "1",
    };
    return timed(() => runScenario({ ...program, env }, { runtime, survives: store !== "MemoryStore" }));
  }

  /** What runs an app: `{ title, command, args }`, or why nothing does: `{ title, missing }`. */
  async #runtime(wanted) {
    if (wanted === undefined) {
      return { title: `Node.js ${process.versions.node}`, command: process.execPath, args: [] };
    }
    const { title, missing, name, program, args } = runtimeFor(wanted.kind, this.#platform);
    if (missing) return { title, missing };
    const folder = await this.#workshop.install({ [name]: wanted.range });
    const command = path.join(folder, "node_modules", name, program);
    return { title: `${title} ${versionIn(folder, name)}`, command, args };
  }

  /** Checks the typings as an app without a framework sees them, and in the example for both frameworks. */
  async #compiler({ typescript }) {
    const { own } = this.#workshop;
    const { dependencies, devDependencies } = require(path.join(EXAMPLE, "package.json"));
    const { typescript: _, ...frameworks } = { ...dependencies, ...devDependencies, ...own };
    const [compiler, alone, together] = [
      await this.#workshop.install({ typescript }),
      await this.#workshop.install(own),
      await this.#workshop.install(frameworks),
    ];
    const tsc = (cwd, ...args) => {
      const file = path.join(compiler, "node_modules/typescript/bin/tsc");
      return run(process.execPath, [file, ...STRICT, ...args], { cwd });
    };
    const copy = (from, to, files) => {
      for (const file of files) fs.copyFileSync(path.join(from, file), path.join(to, file));
      return files;
    };
    const typings = await timed(async () => {
      const plain = copy(TYPES, alone, ["fluidauth.d.ts", "app.mts", "app.cts"]);
      await tsc(alone, "--skipLibCheck", "false", ...plain);
      // The typings of the frameworks need a newer compiler than ours.
      const apps = copy(EXAMPLE, together, ["express.ts", "fastify.ts"]);
      await tsc(together, "--skipLibCheck", "true", "--types", "node", ...apps);
    });
    return { versions: `TypeScript ${versionIn(compiler, "typescript")}`, cells: { typings } };
  }
}

module.exports = { Matrix };
