"use strict";

const { count, median, plural } = require("../stats.js");
const { table, whole } = require("../table.js");

function sections({ size, rows }) {
  const lines = rows.map(({ call, text, rounds }, at) => {
    const before = rows[at - 1];
    const isFirst = before?.call !== call;
    const added = rounds.map((ns, round) => (isFirst ? ns : ns - before.rounds[round]));
    return [isFirst ? call : "", text, whole(median(added)), whole(median(rounds))];
  });
  const title =
    `Where the time of a call goes, MemoryStore with ${count(size)} sessions of FluidAuth's 3 fields, in ns: what each ` +
    `layer adds, and the\nsum so far; medians of ${plural(rows[0].rounds.length, "round")}:`;
  return [{ title, body: table(["call", "layer", "adds", "sum"], lines, 2) }];
}

module.exports = { sections };
