"use strict";

const native = require("./native.js");

const machineNow = Date.now;
// A suite may have replaced `Date` before this module is loaded.
const isMachines = /\[native code\]/.test(Function.prototype.toString.call(machineNow));

/** The milliseconds by which JavaScript's clock is ahead of the machine's: 0 unless the app has replaced `Date.now`. */
function clockOffset() {
  return Date.now === machineNow && isMachines ? 0 : Date.now() - native.now();
}

module.exports = { clockOffset };
