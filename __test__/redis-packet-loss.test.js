"use strict";

// An abandoned write never overtakes a later, acknowledged one, even though TCP retransmits lost packets.
const assert = require("node:assert/strict");
const { spawnSync } = require("node:child_process");
const fs = require("node:fs");
const os = require("node:os");
const path = require("node:path");
const { describe, it } = require("node:test");
const { redisMissing } = require("./support/redis-servers.js");

const SUPPORT = path.join(__dirname, "support", "redis");

/** Returns why this machine cannot create a network namespace, or `false` if it can. */
function networkMissing() {
  const probe = "ip link set lo up && ip link add v0 type veth peer name v1";
  const { status } = spawnSync("unshare", ["-n", "sh", "-c", probe]);
  return status === 0 ? false : "network namespaces are not allowed here";
}

describe("a RedisStore whose packets are lost", { skip: redisMissing || networkMissing() }, () => {
  for (const connection of ["fast path", "worker"]) {
    it(`never delivers an abandoned write, on the connection of the ${connection}`, () => {
      const folder = fs.mkdtempSync(path.join(os.tmpdir(), "two-hosts-"));
      try {
        const script = [path.join(SUPPORT, "packet-loss.js"), connection];
        const args = [
          "-n",
          "bash",
          path.join(SUPPORT, "two-hosts.sh"),
          "redis-server",
          folder,
          process.execPath,
        ];
        const { stdout, stderr } = spawnSync("unshare", [...args, ...script], {
          encoding: "utf8",
          timeout: 60_000,
        });
        assert.match(stdout, /^\{/, stderr);
        const { outcome, read } = JSON.parse(stdout);
        assert.equal(outcome, "ERR_STORE_TIMEOUT unknown");
        assert.deepEqual(read, [2]);
      } finally {
        fs.rmSync(folder, { recursive: true });
      }
    });
  }
});
