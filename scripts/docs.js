"use strict";

// `npm run docs`: builds the site of README, the changelog and docs/ into site/dist. `npm run docs -- preview` serves
// it. Other options go to `vitepress build`, such as `--base /native-store/` for a site in a folder.
const { spawnSync } = require("node:child_process");
const path = require("node:path");
const { installPeers } = require("../bench/install");
const { ROOT } = require("./sources");

const SITE = path.join(ROOT, "site");

/** Installs the generator if it is missing. Only this step needs a network. */
function installGenerator() {
  const trials = Object.fromEntries(
    ["vitepress", "beautiful-mermaid", "github-slugger"].map((name) => [name, `import("${name}")`]),
  );
  const missing = installPeers(SITE, trials, () => console.log("installing VitePress"));
  for (const [name, reason] of Object.entries(missing)) throw new Error(`${name}: ${reason}`);
}

/** Runs VitePress, and returns its exit code. */
function vitepress(args, options) {
  const program = path.join(SITE, "node_modules/vitepress/bin/vitepress.js");
  return spawnSync(process.execPath, [program, ...args], { cwd: SITE, ...options });
}

if (require.main === module) {
  const args = process.argv.slice(2);
  const [command, options] = args[0] === "preview" ? ["preview", args.slice(1)] : ["build", args];
  installGenerator();
  process.exitCode = vitepress([command, ".", ...options], { stdio: "inherit" }).status ?? 1;
}

module.exports = { SITE, installGenerator, vitepress };
