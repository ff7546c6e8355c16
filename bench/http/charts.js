"use strict";

const { ranking } = require("../charts/style.js");
const { median } = require("../stats.js");
const { labelOf } = require("./stores.js");

const PEER = "map";

/** A chart of the requests a second of the app with each store. */
function charts({ connections, load }) {
  if (!load) return [];
  const values = load.rows.map(({ store, rounds }) => ({
    name: labelOf(store),
    value: Math.round(median(rounds.map(({ perSecond }) => perSecond))),
    isOurs: store !== PEER,
  }));
  return [
    {
      file: "http.svg",
      title: "Requests a second to an Express app with a FluidAuth-like session layer",
      subtitle: `${connections} connections; more is better`,
      ...ranking(values, { format: String }),
    },
  ];
}

module.exports = { charts };
