"use strict";

const INK = "#24292f";
const GREY = "#6e7781";
const LINE = "#d8dee4";
const OURS = "#c2410c";
const OTHERS = ["#0969da", "#8250df", "#57606a"];

const GROUP_TITLE = { fontSize: 13, fontWeight: 600, anchor: "start", frame: "group", offset: 6 };

/** With its own background, because the pages that show the charts are light or dark. */
const CONFIG = {
  // Omits the descriptions of single bars. README describes the chart.
  aria: false,
  background: "#ffffff",
  padding: 16,
  font: "system-ui, -apple-system, 'Segoe UI', Helvetica, Arial, sans-serif",
  view: { stroke: null },
  title: { color: INK, fontSize: 15, fontWeight: 600, subtitleFontSize: 12, subtitlePadding: 4, offset: 12 },
  axis: {
    labelColor: INK,
    titleColor: GREY,
    titleFontWeight: 400,
    labelFontSize: 12,
    titleFontSize: 12,
    domainColor: LINE,
    gridColor: LINE,
    ticks: false,
    labelPadding: 6,
    labelLimit: 420,
  },
  legend: { labelColor: INK, labelFontSize: 12, title: null, orient: "top", labelLimit: 320 },
  text: { color: INK, fontSize: 12 },
};

/**
 * Draws rows of `{ name, value, isOurs, group? }` as bars, or on a logarithmic scale as points, with their values.
 * Groups are kept together.
 */
function ranking(rows, { format, isLog = false }) {
  const plot = (group) => ({
    ...(group && { title: { text: group, ...GROUP_TITLE } }),
    data: {
      values: rows.filter((row) => row.group === group).map((row) => ({ ...row, text: format(row.value) })),
    },
    width: 380,
    height: { step: 22 },
    encoding: {
      x: {
        field: "value",
        type: "quantitative",
        axis: null,
        scale: isLog ? { type: "log", nice: true } : {},
      },
      y: { field: "name", type: "nominal", sort: null, title: null, axis: { grid: isLog } },
    },
    layer: [
      {
        mark: isLog
          ? { type: "point", filled: true, size: 90, opacity: 1 }
          : { type: "bar", height: { band: 0.7 } },
        encoding: { color: { condition: { test: "datum.isOurs", value: OURS }, value: OTHERS[2] } },
      },
      { mark: { type: "text", align: "left", dx: 8 }, encoding: { text: { field: "text" } } },
    ],
  });
  const groups = [...new Set(rows.map(({ group }) => group))];
  if (groups.length === 1) return plot(undefined, rows);
  return { vconcat: groups.map(plot), resolve: { scale: { x: "shared" } } };
}

module.exports = { CONFIG, GREY, OTHERS, OURS, ranking };
