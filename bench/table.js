"use strict";

/** Formats a table: the first `texts` columns are left-aligned, the others right-aligned. */
function table(head, rows, texts) {
  const lines = [head, ...rows];
  const widths = head.map((_, column) => Math.max(...lines.map((line) => line[column].length)));
  const pad = (cell, column) => cell[column < texts ? "padEnd" : "padStart"](widths[column]);
  const print = (line) => line.map(pad).join("  ").trimEnd();
  return [print(head), widths.map((width) => "-".repeat(width)).join("  "), ...rows.map(print)].join("\n");
}

const whole = (number) => (Math.round(number) || 0).toString(); // never "-0"
const ratio = (number) => `${number.toFixed(2)}x`;
const tenths = (number) => number.toFixed(1);

module.exports = { ratio, table, tenths, whole };
