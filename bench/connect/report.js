"use strict";

const { count, median, medianRatio, plural, summary } = require("../stats.js");
const { ratio, table, tenths, whole } = require("../table.js");
const { HOWS, titleOf } = require("./race/cases.js");
const { OURS, STORES, labelOf } = require("./stores.js");

const percent = (share) => `${whole(100 * share)}%`;

const storesTable = (stores) =>
  table(
    ["store", "a session is saved after"],
    stores.map((store) => [labelOf(store), STORES[store].answersAfter]),
    2,
  );

/** Selects one figure of the rounds of a row. */
const roundsOf = ({ rounds }, figure) => rounds.map((round) => round[figure]);

/** A table with one figure for each route and store, and the ratio of each of our stores to it. */
function loadTable({ ceiling, rows }, figure, head, format) {
  const cells = (row) => {
    const { median: middle, low, high } = summary(roundsOf(row, figure));
    return [format(middle), `${format(low)}-${format(high)}`];
  };
  const against = (row) =>
    OURS.map((name) => {
      const ours = rows.find(({ route, store }) => route === row.route && store === name);
      return ours === row ? "" : ratio(medianRatio(roundsOf(ours, figure), roundsOf(row, figure)));
    });
  const lines = [
    [ceiling.route, "no session", ...cells(ceiling), ...OURS.map(() => "")],
    ...rows.map((row) => [row.route, labelOf(row.store), ...cells(row), ...against(row)]),
  ];
  const ratios = ["memory/this", "file/this", "touchAfter/this"];
  return table(["route", "store", head, "quartiles", ...ratios], lines, 2);
}

/** A table with the range of the stores' medians on each route. It shows that autocannon is not the bottleneck. */
function busyTable({ ceiling, rows }) {
  const routes = [...new Set(rows.map(({ route }) => route))];
  const groups = [[ceiling], ...routes.map((name) => rows.filter(({ route }) => route === name))];
  const lines = groups.map((group) => {
    const range = (figure, format) => {
      const medians = group.map((row) => median(roundsOf(row, figure)));
      const [low, high] = [format(Math.min(...medians)), format(Math.max(...medians))];
      return low === high ? low : `${low}-${high}`;
    };
    const busy = ["serverBusy", "cannonBusy"].map((figure) => range(figure, percent));
    return [group[0].route, range("perSecond", whole), ...busy];
  });
  return table(["route", "requests/s", "server's core", "autocannon's core"], lines, 1);
}

function raceTable(race) {
  const lines = race.map((row) => {
    const counts = HOWS.map((how) => String(row.back[how] ?? ""));
    return [titleOf(row), String(row.rounds), ...counts];
  });
  return table(["store", "rounds", "by set", "by touch", "by resave"], lines, 1);
}

/** The sections of the report on stores of express-session: `{ title, body }[]`. */
function sections({ sessions, connections, fileSystem, missing, load, race }) {
  const all = [];
  const add = (title, body) => all.push({ title, body });
  const reasons = Object.entries(missing).map(([name, reason]) => `${name}: ${reason}`);
  if (reasons.length > 0) add("Skipped in connect, because they could not be installed:", reasons.join("\n"));
  if (load) {
    const stores = [...new Set(load.rows.map(({ store }) => store))];
    add(`Stores of express-session, files on ${fileSystem}. What each does:`, storesTable(stores));
    add(
      `Requests a second to an Express app, a process for each store, from ${connections} connections with the cookies of ` +
        `${count(sessions)} sessions:\nmedian and quartiles of ${plural(load.ceiling.rounds.length, "round")}. /read touches its session, ` +
        "/change saves it, /login makes one, /plain has none.\nWith touchAfter, /read finds a session that was touched " +
        "within the minute. More is better:",
      loadTable(load, "perSecond", "requests/s", whole),
    );
    add(
      "The same requests: 99th percentile of the latency, in milliseconds. Less is better:",
      loadTable(load, "p99", "p99, ms", tenths),
    );
    add(
      "The same requests: CPU time of the server process, all threads, in microseconds per request. It varies less\n" +
        "with the other load of the machine. Less is better:",
      loadTable(load, "serverCpu", "CPU, us", whole),
    );
    add(
      `How much of a core the processes used (${load.pinned ? "each has one of its own" : "they share the machine"}). ` +
        "Where the server used less than all of its own, it waited\nfor the disk, or other processes had the core:",
      busyTable(load),
    );
  }
  add(
    "Sessions that came back: a request has loaded its session, a logout is answered, then the request ends; it has changed\n" +
      "the session (set), or not (touch), or not but saves it (express-session's resave: true, @fastify/session's default):",
    raceTable(race),
  );
  return all;
}

module.exports = { sections };
