"use strict";

const { ConnectStore } = require("./lib/connect/connect-store.js");

module.exports = { ConnectStore };
