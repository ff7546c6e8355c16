"use strict";

// `npm run simulate -- <count> [<first seed>]`: runs seeds of the redo log's simulator (src/store/file/sim), fresh ones
// unless a first one is given. It stops at the first violations, and prints the seeds that reproduce them.
const { spawnSync } = require("node:child_process");
const { ROOT } = require("./sources");

const DEFAULT_COUNT = "10000";
// Not cargo's `--release`: that takes minutes to build, and checks no overflows.
const CARGO = ["test", "--locked", "--no-default-features", "--lib", "--profile", "simulate"];

function main([count = DEFAULT_COUNT, seed]) {
  for (const given of [count, seed ?? "0"]) {
    if (!/^\d+$/.test(given)) {
      console.error(`usage: npm run simulate -- [<count> [<first seed>]]; got ${JSON.stringify(given)}`);
      return 2;
    }
  }
  const env = { ...process.env, SIM_SEEDS: count };
  if (seed !== undefined) env.SIM_SEED = seed;
  const args = [...CARGO, "sim::tests::fresh_seeds", "--", "--nocapture"];
  return spawnSync("cargo", args, { cwd: ROOT, env, stdio: "inherit" }).status ?? 1;
}

process.exitCode = main(process.argv.slice(2));
