"use strict";

// The table of a run, what it comes to, and which rows a run has.

const COLUMNS = ["FileStore", "RedisStore", "MemoryStore", "typings"];
const SYMBOLS = { passed: "✓", failed: "✗" };

/**
 * @typedef {{ outcome: "passed" | "failed" | "skipped", seconds?: number, reason?: string }} Cell
 * @typedef {{ name: string, versions: string, cells: Record<string, Cell> }} Result
 */

function cellText(cell) {
  if (cell === undefined) return "";
  if (cell.outcome === "skipped") return "skipped";
  return `${SYMBOLS[cell.outcome]} ${cell.seconds.toFixed(1)} s`;
}

/** The results as a table of Markdown, for a terminal and for a page. */
function table(results) {
  const lines = [
    ["row", "versions", ...COLUMNS],
    ...results.map(({ name, versions, cells }) => [
      name,
      versions,
      ...COLUMNS.map((column) => cellText(cells[column])),
    ]),
  ];
  const widths = lines[0].map((_, index) => Math.max(...lines.map((line) => line[index].length)));
  const format = (line) => `| ${line.map((text, index) => text.padEnd(widths[index])).join(" | ")} |`;
  const rule = `|${widths.map((width) => "-".repeat(width + 2)).join("|")}|`;
  const [head, ...body] = lines.map(format);
  return [head, rule, ...body].join("\n");
}

/** Each reason of an outcome once, with the cells that have it. */
function reasonsOf(results, outcome) {
  const places = new Map();
  for (const { name, cells } of results) {
    for (const [column, cell] of Object.entries(cells)) {
      if (cell.outcome !== outcome) continue;
      places.set(cell.reason, [...(places.get(cell.reason) ?? []), `${name} ${column}`]);
    }
  }
  return [...places].map(([reason, where]) => `${outcome}: ${where.join(", ")}: ${reason}`);
}

/**
 * The exit code of a run, and what to print below its table. A skip is neither a pass nor a failure, unless `noSkips`. A
 * run in which nothing passed fails.
 */
function conclude(results, { noSkips = false } = {}) {
  const cells = results.flatMap((result) => Object.values(result.cells));
  const count = (outcome) => cells.filter((cell) => cell.outcome === outcome).length;
  const counts = { passed: count("passed"), failed: count("failed"), skipped: count("skipped") };
  const isGood = counts.passed > 0 && counts.failed === 0 && !(noSkips && counts.skipped > 0);
  const summary = Object.entries(counts).map(([outcome, number]) => `${number} ${outcome}`);
  return {
    code: isGood ? 0 : 1,
    text: [...reasonsOf(results, "failed"), ...reasonsOf(results, "skipped"), summary.join(", ")].join("\n"),
  };
}

/** The rows whose name has one of the words, separated by commas. Throws where a word fits none. */
function select(rows, words) {
  if (words === undefined) return rows;
  const wanted = words.split(",").map((word) => word.trim());
  for (const word of wanted) {
    if (word === "" || !rows.some(({ name }) => name.includes(word))) {
      const names = rows.map(({ name }) => name).join(", ");
      throw new RangeError(`--only: no row has "${word}" in its name. The rows are ${names}`);
    }
  }
  return rows.filter(({ name }) => wanted.some((word) => name.includes(word)));
}

module.exports = { COLUMNS, cellText, conclude, select, table };
