"use strict";

const { existsSync, writeFileSync } = require("node:fs");
const os = require("node:os");
const { parseArgs } = require("node:util");
const parts = require("./parts.js");
const { report } = require("./report.js");
const { judge } = require("./targets.js");

const USAGE = `Usage: npm run bench -- [options]

  --quick            100k sessions only, 2000 of those behind an app, and fewer rounds
  --part <part>      one part only: ${Object.keys(parts).join(", ")}
  --race-rounds <n>  how often the part \`connect\` lets a logout overtake a request, for each way that this ends
  --json <file>      writes all that was measured to a file as well
  --dir <dir>        where the stores in files are made and removed again, by default in the directory for
                     temporary files; they take some 3 GB, or a tenth with --quick`;

const FULL = {
  sizes: [1000, 100_000, 1_000_000],
  rounds: 21,
  memorySizes: [100_000, 1_000_000],
  gapSize: 1_000_000,
  gapRuns: 5,
  fileSize: 1_000_000,
  getRounds: 21,
  createRounds: 5,
  createSeconds: 1,
  createGapSeconds: 3,
  openRounds: 11,
  sessions: 10_000,
  connections: 50,
  loadRounds: 11,
  loadSeconds: 0.5,
  raceRounds: 200,
};
const QUICK = {
  sizes: [100_000],
  rounds: 7,
  memorySizes: [100_000],
  gapSize: 100_000,
  gapRuns: 1,
  fileSize: 100_000,
  getRounds: 7,
  createRounds: 3,
  createSeconds: 0.5,
  createGapSeconds: 2,
  openRounds: 5,
  sessions: 2000,
  connections: 50,
  loadRounds: 3,
  loadSeconds: 0.5,
  raceRounds: 20,
};

function readOptions() {
  const options = {
    quick: { type: "boolean" },
    part: { type: "string" },
    "race-rounds": { type: "string" },
    json: { type: "string" },
    dir: { type: "string", default: os.tmpdir() },
  };
  try {
    const { values } = parseArgs({ options });
    if (values.part !== undefined && !Object.hasOwn(parts, values.part)) {
      throw new Error(`--part must be one of ${Object.keys(parts).join(", ")}; got ${values.part}`);
    }
    const rounds = values["race-rounds"];
    if (rounds !== undefined && !/^[1-9]\d*$/.test(rounds)) {
      throw new Error(`--race-rounds must be a whole number from 1; got ${rounds}`);
    }
    if (!existsSync(values.dir)) throw new Error(`--dir must be a directory; there is no ${values.dir}`);
    return values;
  } catch (error) {
    console.error(`${error.message}\n\n${USAGE}`);
    return process.exit(1);
  }
}

let shown = "";

/** One line that changes on a terminal; elsewhere a line for each step, without the details. */
function progress(step, detail = "") {
  if (process.stderr.isTTY) process.stderr.write(`\r\x1b[K${step}${detail}`);
  else if (step !== shown) process.stderr.write(`${step}\n`);
  shown = step;
}

async function main() {
  const { quick, part, json, dir, "race-rounds": raceRounds } = readOptions();
  const plan = { ...(quick ? QUICK : FULL), directory: dir };
  if (raceRounds !== undefined) plan.raceRounds = Number(raceRounds);
  const before = os.loadavg()[0];
  const measured = {};
  for (const name of part ? [part] : Object.keys(parts)) measured[name] = await parts[name](plan, progress);
  if (process.stderr.isTTY) progress("");

  const cpus = os.cpus();
  const machine = {
    cpu: cpus[0]?.model.trim() ?? "unknown CPU",
    cores: cpus.length,
    platform: `${process.platform} ${process.arch}`,
    node: process.versions.node,
    load: [before, os.loadavg()[0]],
  };
  console.log(report({ machine, ...measured }));
  if (json) {
    const everything = { machine, plan, ...measured, targets: judge(measured) };
    writeFileSync(json, `${JSON.stringify(everything, null, 2)}\n`);
  }
}

main();
