"use strict";

const { writeFileSync } = require("node:fs");
const os = require("node:os");
const { draw, installCharts } = require("./charts/draw.js");
const { readOptions } = require("./options.js");
const parts = require("./parts.js");
const { FULL, QUICK } = require("./plans.js");
const { report } = require("./report.js");
const { judge } = require("./targets.js");

let shown = "";

/** Shows progress: one changing line on a terminal, otherwise a line for each step, without details. */
function progress(step, detail = "") {
  if (process.stderr.isTTY) process.stderr.write(`\r\x1b[K${step}${detail}`);
  else if (step !== shown) process.stderr.write(`${step}\n`);
  shown = step;
}

/** Installs the peers of the parts. Returns why some are missing, by part. */
function install(names) {
  return Object.fromEntries(names.map((name) => [name, parts[name].install?.(progress) ?? {}]));
}

function describeMachine() {
  const cpus = os.cpus();
  return {
    cpu: cpus[0]?.model.trim() ?? "unknown CPU",
    cores: cpus.length,
    platform: `${process.platform} ${process.arch}`,
    node: process.versions.node,
  };
}

async function main() {
  const { quick, names, json, charts, dir, before, raceRounds, redisServers, scaleRows } = readOptions(
    Object.keys(parts),
  );
  const plan = { ...(quick ? QUICK : FULL), directory: dir, before, redisServers, scaleRows };
  if (raceRounds !== undefined) plan.raceRounds = raceRounds;
  const missing = install(names);
  if (charts) installCharts(progress);

  const start = performance.now();
  const loadBefore = os.loadavg()[0];
  const measured = {};
  for (const name of names) measured[name] = await parts[name].run(plan, progress, missing[name]);
  if (process.stderr.isTTY) progress("");
  const seconds = (performance.now() - start) / 1000;
  const machine = { ...describeMachine(), load: [loadBefore, os.loadavg()[0]], seconds };

  const targets = judge(measured);
  console.log(report(machine, measured, targets));
  if (json) writeFileSync(json, `${JSON.stringify({ machine, plan, ...measured, targets }, null, 2)}\n`);
  if (charts) await draw(measured, charts);
}

main();
