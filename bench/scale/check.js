"use strict";

const { predict } = require("./model.js");

/** By how many percent of what was measured the model is off: below 0, it said too little. */
function percentOff(costs, row, figure) {
  const measured = row[figure];
  return (100 * (predict(costs, row.store, row)[figure] - measured)) / measured;
}

module.exports = { percentOff };
