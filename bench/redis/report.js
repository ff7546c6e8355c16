"use strict";

const { count, medianRatio, plural, summary } = require("../stats.js");
const { ratio, table, tenths, whole } = require("../table.js");
const { nearSections } = require("./near/report.js");
const { SERVERS } = require("./servers.js");
const { BYTES } = require("./sessions.js");
const { OURS, labelOf } = require("./stores.js");

const roundsOf = ({ rounds }, figure) => rounds.map((round) => round[figure]);

/** A table with one figure for each call and store, and the ratio of each of our stores to it. */
function figureTable(rows, figure, head, format) {
  const against = (row) =>
    OURS.map((name) => {
      const ours = rows.find(
        ({ call, inFlight, store }) => call === row.call && inFlight === row.inFlight && store === name,
      );
      return ours === row ? "" : ratio(medianRatio(roundsOf(ours, figure), roundsOf(row, figure)));
    });
  const lines = rows.map((row) => {
    const { median: middle, low, high } = summary(roundsOf(row, figure));
    const cells = [format(middle), `${format(low)}-${format(high)}`];
    return [row.call, labelOf(row.store), String(row.inFlight), ...cells, ...against(row)];
  });
  return table(
    ["call", "store", "in flight", head, "quartiles", "ConnectStore/this", "RedisStore/this"],
    lines,
    2,
  );
}

/** The sections of the report on stores in Redis: `{ title, body }[]`. */
function sections({ size, server, missing, near, apps, rows }) {
  const all = [];
  const add = (title, body) => all.push({ title, body });
  const reasons = Object.entries(missing).map(([name, reason]) => `${name}: ${reason}`);
  if (reasons.length > 0) add("Skipped in redis, because they are not available:", reasons.join("\n"));
  const kinds = Object.keys(SERVERS).filter((kind) => rows.some((row) => row.servers === kind));
  for (const kind of kinds) {
    const where = SERVERS[kind].label;
    addFigures(
      add,
      `Redis ${server} ${where}`,
      size,
      rows.filter((row) => row.servers === kind),
    );
    const app = apps.find(({ servers }) => servers === kind);
    if (app) addApp(add, where, app.rows);
  }
  return near ? [...all, ...nearSections(near)] : all;
}

function addFigures(add, where, size, rows) {
  add(
    `Calls a second to ${where}: ${count(size)} sessions of ${BYTES} B of JSON for each store, so many in\n` +
      `flight (each that completes starts the next): median and quartiles of ${plural(rows[0].rounds.length, "round")}, a process for each store.\n` +
      "set saves an existing session. Only ours check that it exists, and RedisStore itself keeps a user index.\n" +
      "More is better:",
    figureTable(rows, "perSecond", "calls/s", whole),
  );
  add(
    "The same calls: CPU time of the main thread, which runs JavaScript, in microseconds per call. Less is better:",
    figureTable(rows, "mainCpu", "CPU, us", tenths),
  );
  add(
    "The same calls: CPU time of all threads of the process, in microseconds per call. Less is better:",
    figureTable(rows, "cpu", "CPU, us", tenths),
  );
  add(
    "The same calls: CPU time of the servers, in microseconds per call. Less is better:",
    figureTable(rows, "serverCpu", "CPU, us", tenths),
  );
}

function addApp(add, where, rows) {
  const rounds = plural(rows[0].rounds.length, "round");
  const figures = [
    ["Requests a second", "perSecond", "requests/s", "More"],
    ["Microseconds of CPU time of the app for each request", "serverCpu", "CPU, us", "Less"],
  ];
  for (const [what, figure, head, better] of figures) {
    add(
      `${what}, an Express app with express-session on ${where}: median and quartiles of\n` +
        `${rounds}. /read touches its session, /change saves it. ${better} is better:`,
      appTable(rows, figure, head),
    );
  }
}

function appTable(rows, figure, head) {
  const lines = rows.map((row) => {
    const ours = rows.find(({ route, store }) => route === row.route && store === "connect");
    const { median: middle, low, high } = summary(roundsOf(row, figure));
    const against = ours === row ? "" : ratio(medianRatio(roundsOf(ours, figure), roundsOf(row, figure)));
    return [row.route, labelOf(row.store), whole(middle), `${whole(low)}-${whole(high)}`, against];
  });
  return table(["route", "store", head, "quartiles", "ConnectStore/this"], lines, 2);
}

module.exports = { sections };
