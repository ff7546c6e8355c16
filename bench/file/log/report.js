"use strict";

const { count, median, plural } = require("../../stats.js");
const { table, tenths, whole } = require("../../table.js");
const { roundsTable } = require("../rounds-table.js");
const { labelOf } = require("../stores.js");

const hundredths = (number) => number.toFixed(2);
const medianOf = (rounds, figure) => median(rounds.map((round) => round[figure]));

const SAME_COLUMNS = "More is better, and the columns are those of the durable creates:";

function callSections({ touches, everysec, two }) {
  const all = [];
  const add = (title, { rows }, head, options) => {
    const body = roundsTable(rows, ["store", head], { figure: "perSecond", costs: true, ...options });
    all.push({ title: `${title}\n${SAME_COLUMNS}`, body });
  };
  const rounds = ({ rows: [{ rounds: of }] }) => plural(of.length, "round");
  if (touches) {
    const title = `Durable touches a second with ${touches.inFlight} in flight, of ${rounds(touches)}.`;
    add(title, touches, "touches/s");
  }
  if (everysec) {
    const title = `Creates a second with ${everysec.inFlight} in flight, of ${rounds(everysec)}. Those of a file are on disk about a second later.`;
    add(title, everysec, "creates/s", { ours: "everysec" });
  }
  if (two) {
    const title = `Durable creates a second of two processes together, ${two.inFlight} in flight in each, of ${rounds(two)}.`;
    add(title, two, "creates/s");
  }
  return all;
}

function getSections({ gets }) {
  if (!gets) return [];
  const all = [
    {
      title: `Get of a random session with an empty log, in ns: median and quartiles of ${plural(gets.empty[0].rounds.length, "round")}. Less is better:`,
      body: roundsTable(gets.empty, ["store", "ns"]),
    },
  ];
  if (gets.filled) {
    all.push({
      title:
        `The same after ${count(gets.count)} more creates, which the older version has in its data file. The log of\n` +
        `native-store had at least ${Math.min(...gets.filled[0].inLog)} of them. Less is better:`,
      body: roundsTable(gets.filled, ["store", "ns"]),
    });
  }
  return all;
}

function switchSections({ switches }) {
  if (!switches) return [];
  const lines = switches.map(({ store, isFull, rounds }) => {
    const took = rounds.map((round) => round.took);
    return [
      labelOf(store),
      isFull ? whole(medianOf(rounds, "inLog")) : "none",
      tenths(median(took)),
      `${tenths(Math.min(...took))}-${tenths(Math.max(...took))}`,
      tenths(medianOf(rounds, "longest")),
      tenths(Math.max(...rounds.map((round) => round.longest))),
    ];
  });
  const head = ["store", "sessions in the log", "open, ms", "all rounds", "longest get, ms", "of all rounds"];
  return [
    {
      title:
        "Opening the store of a process that has it to itself, in a second process, until its first get has resolved, and the\n" +
        `longest get of the first process in that time. Median of ${plural(switches[0].rounds.length, "round")}. Less is better:`,
      body: table(head, lines, 1),
    },
  ];
}

function diskSections({ written }) {
  if (!written) return [];
  const { idle, rows } = written;
  const lines = rows.map(({ store, rounds }) => [
    labelOf(store),
    whole(medianOf(rounds, "bytes")),
    hundredths(medianOf(rounds, "flushes")),
    whole(medianOf(rounds, "closed")),
  ]);
  return [
    {
      title:
        "What the disk wrote for each create, 1 in flight, by its own counters, and if what was written by the end of the\n" +
        `store's close is counted too. Median of ${plural(idle.length, "round")}, without the ${whole(medianOf(idle, "bytes"))} B and ` +
        `${tenths(medianOf(idle, "flushes"))} flushes a second of the idle machine. Less is better:`,
      body: table(["store", "written, B", "flushes", "with close, B"], lines, 1),
    },
  ];
}

function loadSections({ load }) {
  if (!load) return [];
  const lines = load.rows.map(({ store, runs }) => [
    labelOf(store),
    tenths(medianOf(runs, "longest")),
    tenths(Math.max(...runs.map(({ longest }) => longest))),
    tenths(medianOf(runs, "p99")),
    whole(medianOf(runs, "perSecond")),
    tenths(medianOf(runs, "cpu")),
    runs[0].bytes === undefined ? "" : whole(medianOf(runs, "bytes")),
    runs[0].drains === undefined ? "" : whole(medianOf(runs, "drains")),
  ]);
  const head = [
    "store",
    "longest, ms",
    "of all runs",
    "p99, ms",
    "creates/s",
    "CPU, us",
    "written, B",
    "drains",
  ];
  return [
    {
      title:
        `The longest of all creates in ${load.seconds} s with 4096 in flight. The figures include ` +
        `the drains of a log.\nMedian of ${plural(load.rows[0].runs.length, "run")} of ours, one of the others. Less is better, but for creates/s:`,
      body: table(head, lines, 1),
    },
  ];
}

/** The sections on the redo log: `{ title, body }[]`. */
function sections(log) {
  const all = [callSections, getSections, switchSections, diskSections, loadSections].flatMap((of) =>
    of(log),
  );
  const reasons = log.left.map(({ text, reason }) => `${text}: ${reason}`);
  if (reasons.length > 0) all.push({ title: "Skipped in the part file:", body: reasons.join("\n") });
  return all;
}

module.exports = { sections };
