"use strict";

// Load this first: its error explains why the package cannot be loaded on this system.
require("./lib/native.js");
const { ConnectStore } = require("./lib/connect/connect-store.js");

module.exports = { ConnectStore };
