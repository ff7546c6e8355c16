"use strict";

const { atLeast, atMost } = require("../limits.js");
const { medianRatio } = require("../stats.js");
const { titleOf } = require("./race/cases.js");
const { OURS, labelOf } = require("./stores.js");

/** Compares the app on our FileStore to the app on express-session's own MemoryStore. */
function judgeLoad({ rows }) {
  return [...new Set(rows.map(({ route }) => route))].map((route) => {
    const perSecondOf = (name) =>
      rows.find((row) => row.route === route && row.store === name).rounds.map(({ perSecond }) => perSecond);
    const text = `connect, requests a second of ${route}, FileStore against ${labelOf("express")}`;
    return atLeast(text, 0.9, "x", medianRatio(perSecondOf("file"), perSecondOf("express")));
  });
}

/** Requires that no session of our stores comes back. */
function judgeRace(race) {
  return race
    .filter(({ store }) => OURS.includes(store))
    .map(({ rounds, back, ...which }) => {
      const counts = Object.values(back);
      const all = counts.reduce((sum, count) => sum + count, 0);
      return atMost(`connect, came back of ${counts.length * rounds}: ${titleOf(which)}`, 0, "", all);
    });
}

/** The targets of the stores of express-session. */
const judge = ({ load, race }) => [...(load ? judgeLoad(load) : []), ...judgeRace(race)];

module.exports = { judge };
