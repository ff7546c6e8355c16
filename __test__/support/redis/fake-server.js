"use strict";

const { once } = require("node:events");
const net = require("node:net");

const REQUEST = /\*\d+\r\n((?:\$\d+\r\n[^\r]*\r\n)+)/g;

/** Encodes a text as a bulk string. */
const bulk = (text) => `$${Buffer.byteLength(String(text))}\r\n${text}\r\n`;

const list = (items) => `*${items.length}\r\n${items.join("")}`;

/** Encodes a reply to `CLUSTER SLOTS`, given `[first, last, port]` for each range. */
const slotsReply = (ranges) =>
  list(
    ranges.map(([first, last, port]) =>
      list([
        `:${first}\r\n`,
        `:${last}\r\n`,
        list([bulk("127.0.0.1"), `:${port}\r\n`, bulk(`node ${port}`)]),
      ]),
    ),
  );

/**
 * A server with scripted replies: `answer(words)` returns the bytes of a reply, or nothing. It assumes that each
 * request is short and arrives in one piece.
 */
async function startFakeServer(answer) {
  const fake = { connections: 0 };
  const server = net.createServer((socket) => {
    fake.connections++;
    socket.on("error", () => {});
    socket.on("data", (bytes) => {
      for (const [, words] of bytes.toString().matchAll(REQUEST)) {
        const reply = answer(words.split("\r\n").filter((_, at) => at % 2 === 1));
        if (reply !== undefined) socket.write(reply);
      }
    });
  });
  server.unref();
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port } = server.address();
  return Object.assign(fake, { port, url: `redis://127.0.0.1:${port}`, close: () => server.close() });
}

module.exports = { bulk, list, slotsReply, startFakeServer };
