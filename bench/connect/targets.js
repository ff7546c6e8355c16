"use strict";

const { atMost } = require("../limits.js");
const { titleOf } = require("./race/cases.js");
const { OURS } = require("./stores.js");

/** The targets of the stores of express-session: of ours, none comes back. */
function judge({ race }) {
  return race
    .filter(({ store }) => OURS.includes(store))
    .map(({ rounds, back, ...which }) => {
      const counts = Object.values(back);
      const all = counts.reduce((sum, count) => sum + count, 0);
      return atMost(`connect, came back of ${counts.length * rounds}: ${titleOf(which)}`, 0, "", all);
    });
}

module.exports = { judge };
