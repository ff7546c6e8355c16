"use strict";

const { predict } = require("./model.js");

/** Returns the error of the model in percent of the measurement. Negative: the model predicts too little. */
function percentOff(costs, row, figure) {
  const measured = row[figure];
  return (100 * (predict(costs, row.store, row)[figure] - measured)) / measured;
}

module.exports = { percentOff };
