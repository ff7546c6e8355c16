"use strict";

const parts = require("./parts.js");

/** Judges the measured targets: `{ text, sign, limit, unit, value, isMet }[]`. */
const judge = (measured) => Object.entries(measured).flatMap(([name, ofPart]) => parts[name].judge(ofPart));

module.exports = { judge };
