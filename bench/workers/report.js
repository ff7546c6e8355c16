"use strict";

const { count, medianRatio, plural, summary } = require("../stats.js");
const { ratio, table, whole } = require("../table.js");

function sections({ size, rows }) {
  const [one] = rows;
  const lines = rows.map((row) => {
    const { median: middle, low, high } = summary(row.rounds);
    const against = row === one ? "" : ratio(medianRatio(row.rounds, one.rounds));
    return [String(row.threads), whole(middle), `${whole(low)}-${whole(high)}`, against];
  });
  const title =
    `Gets a second of a named MemoryStore with ${count(size)} sessions, of all its worker threads together: median and ` +
    `quartiles of\n${plural(one.rounds.length, "round")}. More is better:`;
  return [{ title, body: table(["workers", "gets/s", "quartiles", "this/one"], lines, 0) }];
}

module.exports = { sections };
