"use strict";

// `npm run matrix`: packs the package, and runs it on each runtime, framework and compiler of matrix/versions.js. npm
// installs all of them into a temporary folder. `--only node-20,fastify` runs the rows that have one of these words in
// their names. With `--no-skips` what cannot run here counts as a failure.
const { parseArgs } = require("node:util");
const { redisMissing, startServer } = require("../__test__/support/redis-servers");
const { cellText, conclude, select, table } = require("./matrix/report");
const { Matrix } = require("./matrix/rows");
const { platformHere } = require("./matrix/runtimes");
const { ROWS } = require("./matrix/versions");
const { Workshop } = require("./matrix/workshop");

async function main() {
  const { values } = parseArgs({
    options: { only: { type: "string" }, "no-skips": { type: "boolean", default: false } },
  });
  const rows = select(ROWS, values.only);

  const workshop = new Workshop();
  process.once("exit", () => workshop.remove());
  process.once("SIGINT", () => process.exit(130)).once("SIGTERM", () => process.exit(143));
  const progress = (text) => console.error(`${new Date().toISOString().slice(11, 19)} ${text}`);

  progress("packing");
  await workshop.pack();
  const server = redisMissing ? undefined : await startServer();
  const redis = server ?? { missing: redisMissing };
  const matrix = new Matrix({ workshop, platform: platformHere(), redis });
  const results = [];
  for (const row of rows) {
    const result = await matrix.run(row);
    results.push(result);
    progress(`${row.name}: ${Object.values(result.cells).map(cellText).join(", ")}`);
  }
  await server?.kill();

  const { code, text } = conclude(results, { noSkips: values["no-skips"] });
  console.log(`${table(results)}\n\n${text}`);
  return code;
}

main().then(
  (code) => {
    process.exitCode = code;
  },
  (error) => {
    console.error(error.message);
    process.exitCode = error instanceof RangeError || error.code?.startsWith("ERR_PARSE_ARGS") ? 2 : 1;
  },
);
