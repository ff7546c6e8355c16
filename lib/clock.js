"use strict";

const native = require("./native.js");

const machineNow = Date.now;
// Tests may have replaced `Date` before this module is loaded.
const isMachines = /\[native code\]/.test(Function.prototype.toString.call(machineNow));

/** How many milliseconds `Date.now` is ahead of the system clock: 0 unless the app has replaced it. */
function clockOffset() {
  return Date.now === machineNow && isMachines ? 0 : Date.now() - native.now();
}

module.exports = { clockOffset };
