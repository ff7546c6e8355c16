"use strict";

const { count, median, medianRatio, plural, summary } = require("../stats.js");
const { ratio, table, whole } = require("../table.js");
const { labelOf } = require("./stores.js");

const PEER = "map";

/** Selects one figure of the rounds of a row. */
const roundsOf = ({ rounds }, figure) => rounds.map((round) => round[figure]);

function loadTable(rows) {
  const peer = rows.find(({ store }) => store === PEER);
  const lines = rows.map((row) => {
    const { median: middle, low, high } = summary(roundsOf(row, "perSecond"));
    const against =
      row === peer ? "" : ratio(medianRatio(roundsOf(row, "perSecond"), roundsOf(peer, "perSecond")));
    const cpu = whole(median(roundsOf(row, "serverCpu")));
    return [labelOf(row.store), whole(middle), `${whole(low)}-${whole(high)}`, against, cpu];
  });
  return table(["store", "requests/s", "quartiles", "this/Map", "CPU, us"], lines, 1);
}

function sections({ sessions, connections, missing, load }) {
  if (!load)
    return [
      { title: "http was skipped, because autocannon could not be installed:", body: missing.autocannon },
    ];
  const title =
    "Requests a second to an Express app with a session layer that calls the store as FluidAuth does, from " +
    `${connections} connections\nwith the cookies of ${count(sessions)} sessions: median and quartiles of ` +
    `${plural(load.rows[0].rounds.length, "round")}, a process for each store; and the server's\nprocessor time a request. ` +
    "More requests are better:";
  return [{ title, body: loadTable(load.rows) }];
}

module.exports = { sections };
