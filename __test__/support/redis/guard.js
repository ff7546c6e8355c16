"use strict";

// Test servers must not outlive the tests, even if a test process is killed: a shell that is connected to this process
// detects its end, and ends them.

const { spawn } = require("node:child_process");
const fs = require("node:fs");
const os = require("node:os");
const path = require("node:path");

const SCRIPT = `
  trap "" INT TERM HUP
  pids=" "
  while read -r verb pid; do
    case $verb in
      watch) pids="$pids$pid " ;;
      forget) pids="\${pids%% $pid *} \${pids#* $pid }" ;;
    esac
  done
  [ -z "\${pids# }" ] || kill -9 $pids
  rm -rf -- "$1"
`;

let guard;

function start() {
  const root = fs.mkdtempSync(path.join(os.tmpdir(), "native-store-redis-"));
  const options = { stdio: ["pipe", "ignore", "ignore"], detached: true };
  const shell = spawn("sh", ["-c", SCRIPT, "sh", root], options);
  shell.unref();
  shell.stdin.unref();
  return { root, pid: shell.pid, tell: (line) => shell.stdin.write(`${line}\n`), made: 0 };
}

/** Creates a directory that is removed when this process ends. */
function newDirectory() {
  guard ??= start();
  const directory = path.join(guard.root, `${++guard.made}`);
  fs.mkdirSync(directory);
  return directory;
}

/** Ends a child with this process. */
function watch(child) {
  guard ??= start();
  guard.tell(`watch ${child.pid}`);
  child.once("exit", () => guard.tell(`forget ${child.pid}`));
}

module.exports = { newDirectory, watch };
