"use strict";

const { spawnSync } = require("node:child_process");
const { existsSync, realpathSync } = require("node:fs");
const path = require("node:path");
const { modified } = require("../scripts/sources.js");

/** Returns the installation of Node.js if it has the headers, so that they need no download. */
function nodeDirectory() {
  const directory = path.join(path.dirname(realpathSync(process.execPath)), "..");
  return existsSync(path.join(directory, "include/node/node_version.h")) ? directory : undefined;
}

function npm(directory, ...args) {
  const env = { npm_config_nodedir: nodeDirectory(), ...process.env };
  const options = { cwd: directory, env, encoding: "utf8", shell: process.platform === "win32" };
  const { status, error, stderr } = spawnSync("npm", args, options);
  if (status === 0) return undefined;
  const reason = error?.message ?? reasonIn(stderr);
  return `${reason}\n  (all that it says: "npm ${args.join(" ")}" in ${directory})`;
}

/** Selects the most useful line of the messages: from node-gyp, otherwise from npm. */
function reasonIn(messages) {
  const [, reason] =
    messages.match(/ERR! stack Error: (.*\S)/) ??
    messages.match(/^npm error (?!code|errno|path|command)(.*\S)/m) ??
    [];
  return reason ?? "npm failed";
}

const isCurrent = (directory) =>
  modified(path.join(directory, "node_modules/.package-lock.json")) >=
  modified(path.join(directory, "package-lock.json"));

/**
 * Installs the packages of a directory if necessary. Returns why packages are missing, by name: `{ [name]: reason }`.
 * `trials` has, by name, code that fails if a package, or the addon that it ships or builds, is missing. The scripts of
 * the packages run separately: a missing compiler must only affect the store that needs it.
 */
function installPeers(directory, trials, progress) {
  const works = (name) => spawnSync(process.execPath, ["-e", trials[name]], { cwd: directory }).status === 0;
  if (!isCurrent(directory)) {
    progress("installing what to compare with");
    const failure = npm(directory, "ci", "--include=dev", "--ignore-scripts", "--no-audit", "--no-fund");
    if (failure) return Object.fromEntries(Object.keys(trials).map((name) => [name, failure]));
  }
  const missing = {};
  for (const name of Object.keys(trials)) {
    if (works(name)) continue;
    progress(`building ${name}, which may take some minutes`);
    const failure = npm(directory, "rebuild", name);
    if (!works(name)) missing[name] = failure ?? "it does not load";
  }
  return missing;
}

module.exports = { installPeers };
