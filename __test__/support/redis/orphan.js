"use strict";

// A process that is killed with servers that it has started.

const { startServer } = require("../redis-servers.js");

Promise.all([startServer(), startServer()]).then((servers) => process.send(servers.map(({ pid }) => pid)));
