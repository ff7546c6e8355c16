"use strict";

const parts = require("./parts.js");

/** The targets of which something was measured: `{ text, sign, limit, unit, value, isMet }[]`. */
const judge = (measured) => Object.entries(measured).flatMap(([name, ofPart]) => parts[name].judge(ofPart));

module.exports = { judge };
