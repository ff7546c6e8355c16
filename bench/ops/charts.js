"use strict";

const colors = require("../charts/style.js");
const { labelOf } = require("../peers.js");
const { SHAPES, shapeLabel } = require("../shapes.js");
const { count, median } = require("../stats.js");

const SHAPE = "fluidauth";

const TICKS = [100, 200, 500, 1000, 2000, 5000, 10_000, 20_000];

/** A chart of the time of a get, by the number of sessions. */
function charts(rows) {
  const { stores } = SHAPES[SHAPE];
  const values = rows
    .filter(({ shape, op }) => shape === SHAPE && op === "get")
    .map(({ size, store, rounds }) => ({
      size: count(size),
      store: labelOf(store),
      ns: Math.round(median(rounds)),
    }));
  const color = {
    field: "store",
    type: "nominal",
    scale: { domain: stores.map(labelOf), range: [colors.OURS, ...colors.OTHERS] },
  };
  return [
    {
      file: "get.svg",
      title: "await store.get(id), by the number of sessions",
      subtitle: `${shapeLabel(SHAPE)}, nanoseconds on a logarithmic scale; less is better`,
      data: { values },
      width: 460,
      height: 280,
      encoding: {
        x: {
          field: "size",
          type: "ordinal",
          sort: null,
          title: "sessions",
          axis: { labelAngle: 0, grid: false },
        },
        y: {
          field: "ns",
          type: "quantitative",
          scale: { type: "log", nice: true },
          title: "ns",
          axis: { values: TICKS },
        },
        color,
      },
      layer: [
        { mark: { type: "line", strokeWidth: 2 } },
        { mark: { type: "point", filled: true, size: 60, opacity: 1 } },
      ],
    },
  ];
}

module.exports = { charts };
