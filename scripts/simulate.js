"use strict";

// `npm run simulate -- [--redis] [<count> [<first seed>]]`: runs seeds of the simulator of the redo log
// (src/store/file/sim), or of RedisStore (src/store/redis/sim). Without a first seed it uses random ones. It stops at
// the first violations, and prints the seeds that reproduce them.
//
// `npm run simulate -- --mutants [<max count> [<first seed>]]`: checks that the simulators find bugs (see mutants.js).
const { spawnSync } = require("node:child_process");
const mutants = require("./mutants");
const { ROOT } = require("./sources");

const OPTIONS = ["--redis", "--mutants", "--common-mutants"];
const DEFAULT_COUNT = "10000";
// Not cargo's `--release`, which takes minutes to build and does not check overflows.
const CARGO = ["test", "--locked", "--no-default-features", "--lib", "--profile", "simulate"];

function main(args) {
  const withRare = args[0] === "--mutants";
  const withMutants = withRare || args[0] === "--common-mutants";
  const store = args[0] === "--redis" ? "redis" : "file";
  const [count = DEFAULT_COUNT, seed] = OPTIONS.includes(args[0]) ? args.slice(1) : args;
  for (const given of [count, seed ?? "0"]) {
    if (!/^\d+$/.test(given)) {
      const usage = `npm run simulate -- [${OPTIONS.join(" | ")}] [<count> [<first seed>]]`;
      console.error(`usage: ${usage}; got ${JSON.stringify(given)}`);
      return 2;
    }
  }
  if (withMutants) return mutants.run({ withRare, seeds: Number(count), first: seed ?? "1" }) ? 0 : 1;
  const env = { ...process.env, SIM_SEEDS: count };
  if (seed !== undefined) env.SIM_SEED = seed;
  const command = [...CARGO, `${store}::sim::tests::fresh_seeds`, "--", "--nocapture"];
  return spawnSync("cargo", command, { cwd: ROOT, env, stdio: "inherit" }).status ?? 1;
}

try {
  process.exitCode = main(process.argv.slice(2));
} catch (error) {
  console.error(error.message);
  process.exitCode = 1;
}
