"use strict";

const { ranking } = require("../charts/style.js");
const { median } = require("../stats.js");
const { OURS, labelOf } = require("./stores.js");

const GROUPS = {
  "/read": "reads a session, and touches it",
  "/change": "changes a session",
  "/login": "logs in",
};

/** Requests a second of the app with each store, by what a request does. */
function charts({ connections, load }) {
  if (!load) return [];
  const values = load.rows.map(({ route, store, rounds }) => ({
    name: labelOf(store),
    group: GROUPS[route],
    value: Math.round(median(rounds.map(({ perSecond }) => perSecond))),
    isOurs: OURS.includes(store),
  }));
  return [
    {
      file: "connect.svg",
      title: "Requests a second to an Express app with express-session",
      subtitle: `${connections} connections; more is better`,
      ...ranking(values, { format: String }),
    },
  ];
}

module.exports = { charts };
