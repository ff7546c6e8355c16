"use strict";

const parts = require("./parts.js");
const { table } = require("./table.js");

function targetsTable(targets) {
  const lines = targets.map(({ text, sign, limit, unit, value, isMet }) => [
    text,
    `${sign} ${limit}${unit}`,
    `${value.toFixed(2)}${unit}`,
    isMet ? "met" : "MISSED",
  ]);
  return table(["target", "limit", "measured", ""], lines, 1);
}

function machineLine({ cpu, cores, node, platform, load, seconds }) {
  const loads = load.map((now) => now.toFixed(2)).join(" before, ");
  const ran = `${seconds.toFixed(0)} s`;
  return `${cpu}, ${cores} cores, ${platform}, Node ${node}, load average ${loads} after ${ran}`;
}

/** Formats all measurements as text. */
function report(machine, measured, targets) {
  const sections = Object.entries(measured).flatMap(([name, ofPart]) => parts[name].sections(ofPart));
  if (targets.length > 0) sections.push({ title: "Targets:", body: targetsTable(targets) });
  const texts = sections.map(({ title, body }) => `${title}\n\n${body}`);
  return `${[machineLine(machine), ...texts].join("\n\n")}\n`;
}

module.exports = { report };
