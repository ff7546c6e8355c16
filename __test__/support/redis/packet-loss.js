"use strict";

// Run by `two-hosts.sh`: a write is abandoned while packets are lost, and another one is acknowledged afterwards.
// Prints the reads until TCP would have delivered the first. Arguments: the connection to use, the address.
const { execFileSync } = require("node:child_process");
const { setTimeout: sleep } = require("node:timers/promises");
const NOWHERE = "00:00:00:00:00:01";
// TCP retransmits after about 0.2, 0.6, 1.4 and 3 seconds.
const LOST_FOR = 2000;
const LOOKED_FOR = 4000;

const [connection, address] = process.argv.slice(2);
// In Bun a store has no fast path.
if (connection === "worker") Object.defineProperty(process.versions, "bun", { value: "1" });
const { RedisStore } = require("../../..");

function lead(to) {
  execFileSync("ip", ["neigh", "replace", "10.9.0.2", "lladdr", to, "dev", "v0", "nud", "permanent"]);
}

const session = (version) => ({
  sessionId: "s",
  userId: "ann",
  expires: new Date(Date.now() + 3_600_000).toISOString(),
  version,
});

async function untilDone(call) {
  for (;;) {
    try {
      return await call();
    } catch {
      await sleep(20);
    }
  }
}

async function main() {
  const store = new RedisStore({
    url: "redis://10.9.0.2:7001",
    commandTimeout: 1000,
    connectTimeout: 300,
    sweepInterval: 0,
  });
  lead(address);
  await untilDone(() => store.create(session(0)));
  // After this it has both of its connections.
  for (let at = 0; at < 20; at++, await sleep(20)) await untilDone(() => store.get("s"));
  const begun = performance.now();
  lead(NOWHERE);
  const outcome = await store.update("s", session(1)).then(
    () => "done",
    (error) => `${error.code} ${error.outcome}`,
  );
  await sleep(LOST_FOR - (performance.now() - begun));
  lead(address);
  await untilDone(() => store.update("s", session(2)));
  const read = new Set();
  do {
    await sleep(20);
    read.add(await untilDone(() => store.get("s")).then(({ version }) => version));
  } while (performance.now() - begun < LOOKED_FOR);
  await store.close();
  console.log(JSON.stringify({ outcome, read: [...read] }));
}

main();
