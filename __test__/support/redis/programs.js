"use strict";

// The programs that tests against real servers start.

const { spawnSync } = require("node:child_process");

const isThere = (program, ...args) => spawnSync(program, args, { stdio: "ignore" }).status === 0;

const PACKAGES = {
  "redis-server": "redis-server",
  "redis-sentinel": "redis-sentinel",
};

const missing = Object.keys(PACKAGES).filter((program) => !isThere(program, "--version"));

/** Why tests against a server are skipped, or `false`. For `skip`. */
const redisMissing =
  process.platform === "win32"
    ? "tests against Redis need what Windows has not"
    : missing.length > 0 && `no ${missing.join(" and no ")} here: install the packages of that name`;

/** The same for tests with TLS. */
const tlsMissing =
  redisMissing || (!isThere("openssl", "version") && "no openssl here: it makes certificates");

module.exports = { redisMissing, tlsMissing };
