"use strict";

// A real PostgreSQL server for tests: on a free port of 127.0.0.1, in its own folder. It ends with the process that
// started it.

const { spawn, spawnSync } = require("node:child_process");
const { once } = require("node:events");
const fs = require("node:fs");
const path = require("node:path");
const { newDirectory, watch } = require("./redis/guard.js");
const { freePort } = require("./redis/ports.js");

// Debian keeps its programs outside of PATH.
const DEBIAN = "/usr/lib/postgresql";
const READY = /database system is ready to accept connections/;
const TAKEN = /Address already in use/;
const IS_ROOT = process.getuid?.() === 0;

const folder = findPrograms();

/** Why tests against a server are skipped, or `false`. For `skip`. */
const postgresMissing = folder === undefined && "no PostgreSQL here: install the package postgresql";

function findPrograms() {
  if (process.platform === "win32") return undefined;
  const versions = fs.existsSync(DEBIAN) ? fs.readdirSync(DEBIAN).sort((one, other) => other - one) : [];
  const folders = [
    ...versions.map((version) => path.join(DEBIAN, version, "bin")),
    ...(process.env.PATH ?? "").split(path.delimiter),
  ];
  return folders.find((each) => ["initdb", "postgres"].every((name) => fs.existsSync(path.join(each, name))));
}

/** The server does not run as root, so root becomes the user of the Debian package. */
function owner() {
  if (!IS_ROOT) return {};
  const [uid, gid] = ["-u", "-g"].map((flag) => {
    return Number(spawnSync("id", [flag, "postgres"], { encoding: "utf8" }).stdout);
  });
  return { uid, gid };
}

/**
 * Starts a server. The superuser `test` needs no password, but the users of `passwords` do.
 * @param {Record<string, string>} passwords
 */
async function startPostgres({ passwords = {} } = {}) {
  const data = newDirectory();
  const rights = owner();
  if (IS_ROOT) {
    // Only root can access its parent.
    fs.chmodSync(path.dirname(data), 0o711);
    fs.chownSync(data, rights.uid, rights.gid);
  }
  fs.chmodSync(data, 0o700);
  const options = ["-D", data, "-U", "test", "--auth=trust", "--no-sync", "--encoding=UTF8"];
  const made = spawnSync(path.join(folder, "initdb"), options, { cwd: data, encoding: "utf8", ...rights });
  if (made.status !== 0) throw new Error(`initdb ended:\n${made.stderr}`);
  const access = path.join(data, "pg_hba.conf");
  const asked = Object.keys(passwords).map((user) => `host all ${user} 127.0.0.1/32 scram-sha-256\n`);
  fs.writeFileSync(access, asked.join("") + fs.readFileSync(access, "utf8"));
  for (let attempt = 1; ; attempt++) {
    try {
      return await run(data, rights, await freePort());
    } catch (error) {
      if (attempt === 5 || !TAKEN.test(error.message)) throw error;
    }
  }
}

async function run(data, rights, port) {
  const args = ["-D", data, "-p", port, "-h", "127.0.0.1", "-k", data, "-F"].map(String);
  const child = spawn(path.join(folder, "postgres"), args, {
    cwd: data,
    env: { ...process.env, LC_MESSAGES: "C" },
    stdio: ["ignore", "ignore", "pipe"],
    ...rights,
  });
  const exit = once(child, "exit");
  watch(child);
  let said = "";
  await new Promise((resolve, reject) => {
    child.stderr.setEncoding("utf8").on("data", (text) => {
      said += text;
      if (READY.test(said)) resolve();
    });
    exit.then(() => reject(new Error(`postgres ended:\n${said}`)), reject);
  });
  child.stderr.removeAllListeners("data").resume();
  // A forgotten server must not keep a test alive.
  for (const handle of [child, child.stderr]) handle.unref();
  return {
    url: `postgres://test@127.0.0.1:${port}/postgres`,
    port,
    async stop() {
      child.ref();
      child.kill("SIGQUIT");
      await exit;
    },
  };
}

module.exports = { postgresMissing, startPostgres };
