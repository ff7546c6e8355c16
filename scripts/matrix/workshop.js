"use strict";

// The temporary folder of a run: the packed package, what npm installs for the rows, and the stores. Nothing stays.
const { spawn } = require("node:child_process");
const { once } = require("node:events");
const fs = require("node:fs");
const os = require("node:os");
const path = require("node:path");
const { name: PACKAGE } = require("../../package.json");
const { ROOT } = require("../sources");

const KEPT = 4000;

/** Runs a program to its end. Throws an Error with the end of its output if it fails. */
async function run(command, args, options) {
  const child = spawn(command, args, { stdio: ["ignore", "pipe", "pipe"], ...options });
  let output = "";
  for (const stream of [child.stdout, child.stderr]) {
    stream.setEncoding("utf8").on("data", (text) => {
      output = (output + text).slice(-KEPT);
    });
  }
  const [code] = await once(child, "close");
  if (code !== 0) throw new Error(`${path.basename(command)} ${args.join(" ")} failed:\n${output.trimEnd()}`);
}

/** npm's own file, if a script of npm runs us. On Windows `npm` is no program. */
function npm(args, cwd) {
  const file = process.env.npm_execpath;
  const quiet = ["--no-audit", "--no-fund", "--loglevel", "error"];
  return file?.endsWith("npm-cli.js")
    ? run(process.execPath, [file, ...args, ...quiet], { cwd })
    : run("npm", [...args, ...quiet], { cwd });
}

class Workshop {
  #home = fs.mkdtempSync(path.join(os.tmpdir(), "native-store-matrix-"));
  #installed = new Map();
  #made = 0;
  #tarball;

  /** A new and empty folder. */
  folder() {
    const folder = path.join(this.#home, String(++this.#made));
    fs.mkdirSync(folder);
    return folder;
  }

  /** Packs the package as for the registry. */
  async pack() {
    const folder = this.folder();
    await npm(["pack", "--pack-destination", folder], ROOT);
    const [file] = fs.readdirSync(folder);
    this.#tarball = path.join(folder, file);
  }

  /** The dependency of an app on the packed package. */
  get own() {
    return { [PACKAGE]: `file:${this.#tarball}` };
  }

  /** A folder with these packages, which rows may share: `{ [name]: range }`. */
  install(dependencies) {
    const key = JSON.stringify(dependencies);
    if (!this.#installed.has(key)) this.#installed.set(key, this.#install(dependencies));
    return this.#installed.get(key);
  }

  async #install(dependencies) {
    const folder = this.folder();
    const manifest = { private: true, type: "module", dependencies };
    fs.writeFileSync(path.join(folder, "package.json"), JSON.stringify(manifest));
    await npm(["install", "--ignore-scripts", "--no-package-lock"], folder);
    return folder;
  }

  remove() {
    fs.rmSync(this.#home, { recursive: true, force: true, maxRetries: 5 });
  }
}

/** The version of a package that is installed in a folder. */
function versionIn(folder, name) {
  return JSON.parse(fs.readFileSync(path.join(folder, "node_modules", name, "package.json"), "utf8")).version;
}

module.exports = { Workshop, run, versionIn };
