"use strict";

// Runs scripts in separate processes.

const { execFile, spawn, spawnSync } = require("node:child_process");
const { once } = require("node:events");
const path = require("node:path");
const readline = require("node:readline");
const { after } = require("node:test");

const ROOT = path.join(__dirname, "../..");

/** The prologue of each script. */
const PRELUDE = `
  const { FileStore } = require(${JSON.stringify(ROOT)});
  const { session } = require(${JSON.stringify(path.join(__dirname, "file-session.js"))});
  const say = (text) => require("node:fs").writeSync(1, text + "\\n");
`;

/** Returns Node's arguments for a script. It finds `args` in `process.argv` from index 1. */
const nodeArgs = (script, { args = [], flags = [] }) => [...flags, "-e", PRELUDE + script, "--", ...args];

/** Runs a command, which must succeed in time. Returns its output. */
function execute([command, ...args], options) {
  return new Promise((resolve, reject) => {
    execFile(command, args, { timeout: 60_000, cwd: ROOT, ...options }, (error, stdout, stderr) => {
      if (error) reject(Object.assign(error, { stdout, stderr }));
      else resolve(stdout.trim());
    });
  });
}

/** Runs a script that must end by itself. A `prefix` is a command that runs Node. */
const run = (script, { args, flags, prefix = [], ...options } = {}) =>
  execute([...prefix, process.execPath, ...nodeArgs(script, { args, flags })], options);

/** Starts a script that prints lines, and ends when it is killed or its input ends. */
function start(script, { args, prefix = [], ...options } = {}) {
  const [command, ...rest] = [...prefix, process.execPath, ...nodeArgs(script, { args })];
  const stdio = ["pipe", "pipe", "inherit"];
  const child = spawn(command, rest, { cwd: ROOT, stdio, ...options });
  const lines = readline.createInterface({ input: child.stdout })[Symbol.asyncIterator]();
  const exit = once(child, "exit");
  // The test that starts it.
  after(() => child.kill("SIGKILL"));
  return {
    child,
    exit,
    /** Resolves to its next line, or to `undefined` when it has ended. */
    hear: async () => (await lines.next()).value,
    end: async () => {
      child.stdin.end();
      return exit;
    },
    kill: async () => {
      child.kill("SIGKILL");
      return exit;
    },
  };
}

/** Returns the first of these commands that works here as a prefix for `run`, or `undefined`. */
const findPrefix = (...prefixes) =>
  prefixes.find(([command, ...args]) => spawnSync(command, [...args, "true"]).status === 0);

module.exports = { PRELUDE, ROOT, execute, findPrefix, run, start };
