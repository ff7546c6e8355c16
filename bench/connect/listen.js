"use strict";

const { once } = require("node:events");

/** Makes a server listen on a free port. Resolves to its address. */
async function listen(server) {
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  return `http://127.0.0.1:${server.address().port}`;
}

module.exports = { listen };
