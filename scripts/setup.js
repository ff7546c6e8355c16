"use strict";

const { spawnSync } = require("node:child_process");
const fs = require("node:fs");
const path = require("node:path");
const { ROOT, modified, sourcesModified } = require("./sources");

const inRoot = (...names) => path.join(ROOT, ...names);

function run(command, args, options) {
  // On Windows npm is a script, which needs a shell.
  const shell = process.platform === "win32";
  return spawnSync(command, args, { cwd: ROOT, shell, ...options }).status === 0;
}

function dependenciesAreCurrent() {
  // npm writes this list last, so an incomplete installation does not count.
  return modified(inRoot("node_modules", ".package-lock.json")) >= modified(inRoot("package-lock.json"));
}

function installDependencies() {
  // The build tools are development dependencies, which NODE_ENV=production would skip.
  const installed = run("npm", ["ci", "--include=dev", "--no-audit", "--no-fund"], { stdio: "inherit" });
  if (!installed) throw new Error("npm ci failed: its messages above say why.");
}

/** Returns the addons of this platform. Their names end with the C library, which only the build knows. */
function addons() {
  const name = new RegExp(`^native-store\\.${process.platform}-(${process.arch}|universal)[-.].*node$`);
  return fs
    .readdirSync(ROOT)
    .filter((file) => name.test(file))
    .map((file) => inRoot(file));
}

function addonIsCurrent() {
  return fs.existsSync(inRoot("binding.js")) && Math.max(...addons().map(modified)) >= sourcesModified();
}

function buildAddon() {
  if (!run("cargo", ["--version"], { stdio: "ignore" })) {
    throw new Error(
      "Building the addon needs Rust, and cargo was not found.\n" +
        "Install it as https://rustup.rs says, open a new terminal and run this again.",
    );
  }
  if (!run("npm", ["run", "--silent", "build"], { stdio: "inherit" })) {
    throw new Error("Building the addon failed: the messages above say why.");
  }
  // Cargo does not rewrite the addon if a source was touched without a change. Then it is current as well.
  const now = new Date();
  for (const addon of addons()) fs.utimesSync(addon, now, now);
}

/**
 * Ensures that the dependencies are installed and the addon is built, and prints each step. Throws an Error with a
 * readable message.
 * @param {number} total The caller's number of steps, including these two.
 */
function setup(total) {
  const step = (number, current, task, work) => {
    console.log(`[${number}/${total}] ${current ? `${task}: nothing to do` : `${task} ...`}`);
    if (!current) work();
  };
  step(1, dependenciesAreCurrent(), "installing dependencies", installDependencies);
  step(2, addonIsCurrent(), "building the addon", buildAddon);
}

module.exports = { addonIsCurrent, setup };
