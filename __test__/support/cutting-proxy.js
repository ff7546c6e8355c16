"use strict";

const { once } = require("node:events");
const net = require("node:net");

/** A proxy that cuts a connection once the server has sent this many bytes. */
async function startCuttingProxy(port, bytes) {
  const proxy = net.createServer((client) => {
    const server = net.connect(port, "127.0.0.1");
    let left = bytes;
    const cut = () => {
      client.destroy();
      server.destroy();
    };
    for (const socket of [client, server]) socket.on("error", cut).on("close", cut);
    client.on("data", (data) => server.write(data));
    server.on("data", (data) => {
      left -= data.length;
      if (left > 0) client.write(data);
      else cut();
    });
  });
  proxy.listen(0, "127.0.0.1");
  await once(proxy, "listening");
  return { port: proxy.address().port, stop: () => proxy.close() };
}

module.exports = { startCuttingProxy };
