"use strict";

const { once } = require("node:events");

/** The address of a server that listens on a free port. */
async function listen(server) {
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  return `http://127.0.0.1:${server.address().port}`;
}

module.exports = { listen };
