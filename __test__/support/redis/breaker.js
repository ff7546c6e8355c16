"use strict";

// A server on a separate thread, which resets the connection of a fast path right after a reply: the one to the `get`
// of the session `break`. It stores no sessions, but reports every touched one as live.

const { once } = require("node:events");
const net = require("node:net");
const { Worker, isMainThread, parentPort, workerData } = require("node:worker_threads");

const PAUSE = 20;
const PATIENCE = 5000;

/** Parses complete commands. Returns their words, and the rest of the text. */
function take(text) {
  const [, count] = /^\*(\d+)\r\n/.exec(text) ?? [];
  if (count === undefined) return undefined;
  let at = text.indexOf("\n") + 1;
  const words = [];
  while (words.length < Number(count)) {
    const [line, length] = /^\$(\d+)\r\n/.exec(text.slice(at, at + 20)) ?? [];
    if (line === undefined) return undefined;
    const end = at + line.length + Number(length);
    if (text.length < end + 2) return undefined;
    words.push(text.slice(at + line.length, end));
    at = end + 2;
  }
  return [words, text.slice(at)];
}

function serve(socket, hasBroken) {
  let text = "";
  let isFast = false;
  const answers = { PING: "+PONG\r\n", SCRIPT: "+OK\r\n" };
  const breakIt = () => {
    socket.resetAndDestroy();
    // The file exists immediately, but there is no notification.
    setTimeout(() => {
      Atomics.store(hasBroken, 0, 1);
      Atomics.notify(hasBroken, 0);
    }, PAUSE);
  };
  socket.on("error", () => {});
  socket.on("data", (bytes) => {
    text += bytes;
    for (let taken = take(text); taken !== undefined; taken = take(text)) {
      const [words, rest] = taken;
      text = rest;
      if (words[0] === "SCRIPT") isFast = true;
      if (isFast && words[1]?.endsWith("break")) return socket.write("$-1\r\n", breakIt);
      if (words[0] === "EVALSHA") socket.write(isFast ? ":1\r\n" : ":0\r\n");
      else socket.write(answers[words[0]] ?? "$-1\r\n");
    }
  });
}

/** Starts it. */
async function startBreaker() {
  const hasBroken = new Int32Array(new SharedArrayBuffer(4));
  const worker = new Worker(__filename, { workerData: { hasBroken } });
  const [port] = await once(worker, "message");
  return {
    url: `redis://127.0.0.1:${port}`,
    /** Blocks this thread until the reset is on its way. */
    waitForBreak: () => Atomics.wait(hasBroken, 0, 0, PATIENCE),
    end: () => worker.terminate(),
  };
}

if (!isMainThread && workerData?.hasBroken !== undefined) {
  const server = net.createServer((socket) => serve(socket, workerData.hasBroken));
  server.listen(0, "127.0.0.1", () => parentPort.postMessage(server.address().port));
}

module.exports = { startBreaker };
