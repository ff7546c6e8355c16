"use strict";

const { connectSections } = require("./connect/report.js");
const { fileSections } = require("./file/report.js");
const { OURS, OTHERS, labelOf } = require("./peers.js");
const { count, summary, median, medianRatio } = require("./stats.js");
const { ratio, table, tenths, whole } = require("./table.js");
const { judge } = require("./targets.js");

function opsTable(rows) {
  const lines = rows.map(({ size, op, store, rounds }) => {
    const { median: middle, low, high } = summary(rounds);
    const ours = rows.find((row) => row.size === size && row.op === op && row.store === OURS).rounds;
    const against = store === OURS ? "" : ratio(medianRatio(ours, rounds));
    return [count(size), op, labelOf(store), whole(middle), `${whole(low)}-${whole(high)}`, against];
  });
  return table(["sessions", "call", "store", "ns", "quartiles", "ours/this"], lines, 3);
}

function memoryTable(rows) {
  const lines = rows.map(({ size, store, rss, heap }) => {
    const ours = rows.find((row) => row.size === size && row.store === OURS);
    const against = store === OURS ? "" : ratio(ours.rss / rss);
    return [count(size), labelOf(store), whole(rss), whole(heap), against];
  });
  return table(["sessions", "store", "RSS, B", "V8 heap, B", "ours/this"], lines, 2);
}

function gapsTable(rows) {
  const lines = rows.map(({ store, inBackground, runs }) => {
    const of = (key) => runs.map((run) => run[key]);
    const longest = of("longest");
    const range = `${tenths(Math.min(...longest))}-${tenths(Math.max(...longest))}`;
    const how = inBackground ? "background sweep" : store === "memorystore" ? "prune()" : "clean()";
    return [
      labelOf(store),
      how,
      tenths(median(longest)),
      range,
      tenths(median(of("quiet"))),
      inBackground ? "" : whole(median(of("took"))),
    ];
  });
  return table(["store", "sweep", "longest gap, ms", "all runs", "without sweep", "took, ms"], lines, 2);
}

function targetsTable(targets) {
  const lines = targets.map(({ text, sign, limit, unit, value, isMet }) => [
    text,
    `${sign} ${limit}${unit}`,
    `${value.toFixed(2)}${unit}`,
    isMet ? "met" : "MISSED",
  ]);
  return table(["target", "limit", "measured", ""], lines, 1);
}

function machineLine({ cpu, cores, node, platform, load }) {
  const loads = load.map((now) => now.toFixed(2)).join(" before, ");
  return `${cpu}, ${cores} cores, ${platform}, Node ${node}, load average ${loads} after`;
}

/** Everything that was measured, as text. */
function report({ machine, ops, memory, gaps, file, connect }) {
  const sections = [`${machineLine(machine)}`];
  const add = (title, body) => sections.push(`${title}\n\n${body}`);
  if (ops) {
    const others = OTHERS.filter((name) => name !== "map").map(labelOf);
    add(
      `Calls, in ns: median and quartiles of ${ops[0].rounds.length} rounds, a process for each store.\n` +
        "Each call includes making a new id string, whose cost is the first row; create and touch include the\n" +
        `text or Date of the expiry. ${others.join(" and ")} answer by setImmediate: awaited one by one, each\n` +
        "call costs them a turn of the event loop.",
      opsTable(ops),
    );
  }
  if (memory) add("Memory a session, each of another user, in a new process:", memoryTable(memory));
  if (gaps) {
    const { size, runs } = gaps[0];
    add(
      `Longest gap of the event loop while ${count(size / 2)} of ${count(size)} sessions are swept ` +
        `(median of ${runs.length} runs of ours, one\nof the others). Without a sweep it is what the machine adds in a second:`,
      gapsTable(gaps),
    );
  }
  if (file) for (const { title, body } of fileSections(file)) add(title, body);
  if (connect) for (const { title, body } of connectSections(connect)) add(title, body);
  add("Targets:", targetsTable(judge({ ops, memory, gaps, file, connect })));
  return `${sections.join("\n\n")}\n`;
}

module.exports = { report };
