"use strict";

const { inspect } = require("node:util");
const { count } = require("../stats.js");
const { table, tenths, whole } = require("../table.js");
const { percentOff } = require("./check.js");
const { COSTS } = require("./costs.js");
const { predict } = require("./model.js");

/** How figures are shown, by name. Bytes per session are shown as a total. */
const SHOWN = {
  open: { label: "open until the first get, ms", format: tenths },
  get: { label: "get, ns", format: whole },
  create: { label: "create, ns", format: whole },
  sweep: { label: "sweep, ns an expired session", format: whole },
  written: { label: "written to the disk a create, B", format: whole },
};
const TOTALS = { memory: "RSS, MB", file: "data.mdb and redo.log, MB", redis: "used_memory, MB" };
const MB = 1e6;
/** In smaller stores, fixed costs hide the growth. */
const SMALLEST_REFERENCE = 1_000_000;

function checkLines(row) {
  const head = [row.store, count(row.size), String(row.content)];
  const expected = predict(COSTS, row.store, row);
  const lines = [];
  const add = (label, format, name, times = 1) => {
    const off = percentOff(COSTS, row, name);
    const cells = [format(expected[name] * times), format(row[name] * times), `${whole(off)} %`];
    lines.push([...head, label, ...cells]);
  };
  add(TOTALS[row.store], tenths, "bytes", row.size / MB);
  const names = Object.keys(SHOWN).filter((name) => row[name] !== undefined);
  for (const name of names) add(SHOWN[name].label, SHOWN[name].format, name);
  return lines;
}

const checkTable = (rows) =>
  table(
    ["store", "sessions", "app data, B", "figure", "model", "measured", "model is off by"],
    rows.flatMap(checkLines),
    4,
  );

/** Figures outside of the model: they do not grow with the sessions, or depend on earlier calls. */
const fileTable = (rows) =>
  table(
    [
      "sessions",
      "app data, B",
      "fill, s",
      "own memory, MB",
      "file pages mapped, MB",
      "lone creates/s",
      "B a lone create",
    ],
    rows.map((row) => [
      count(row.size),
      String(row.content),
      whole(row.fillSeconds),
      tenths(row.own / MB),
      row.mapped === undefined ? "" : tenths(row.mapped / MB),
      whole(row.alonePerSecond),
      row.writtenAlone === undefined ? "" : whole(row.writtenAlone),
    ]),
    0,
  );

function cpuTable(rows) {
  const lines = rows.flatMap(({ size, content, cpu }) =>
    Object.entries(cpu).map(([call, { spread, together }]) => [
      count(size),
      String(content),
      call,
      tenths(spread),
      tenths(together),
    ]),
  );
  return table(["sessions", "app data, B", "call", "64 connections, us", "one connection, us"], lines, 0);
}

/** Formats for source code: four digits, and no zeros. */
const short = (_, one) => (typeof one === "number" ? Number(one.toPrecision(4)) || undefined : one);

/** Formats costs as source code. */
const costsText = (costs) =>
  inspect(JSON.parse(JSON.stringify(costs, short)), { depth: 5, breakLength: 100 });

/** The sections of the report on sizes: `{ title, body }[]`. */
function sections({ rows, costs, missing }) {
  const all = Object.entries(missing).map(([name, body]) => ({ title: `Skipped in scale: ${name}`, body }));
  all.push({
    title: "The model of bench/scale, with the costs of bench/scale/costs.js, beside what was measured:",
    body: checkTable(rows),
  });
  const files = rows.filter(({ store }) => store === "file");
  if (files.length > 0)
    all.push({ title: "FileStore, what the model does not predict:", body: fileTable(files) });
  const servers = rows.filter(({ store }) => store === "redis");
  if (servers.length > 0) {
    const title = `Redis ${servers[0].version}, processor time of the server a call:`;
    all.push({ title, body: cpuTable(servers) });
  }
  if (costs.reference >= SMALLEST_REFERENCE && Object.keys(costs).length > 1) {
    const body = costsText(costs);
    all.push({ title: "These rows as costs, for bench/scale/costs.js:", body });
  }
  return all;
}

module.exports = { costsText, sections };
