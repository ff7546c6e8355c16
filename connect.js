"use strict";

// First, as it says what is missing on a system that cannot load the rest.
require("./lib/native.js");
const { ConnectStore } = require("./lib/connect/connect-store.js");

module.exports = { ConnectStore };
