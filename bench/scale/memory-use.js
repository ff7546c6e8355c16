"use strict";

const { readFileSync } = require("node:fs");
const { setTimeout: sleep } = require("node:timers/promises");

const KIB = 1024;

/** Bytes of a line of the process's status, or `undefined` where the system has no such file. */
function statusOf(name) {
  if (process.platform !== "linux") return undefined;
  const [, kib] = new RegExp(`^${name}:\\s+(\\d+) kB$`, "m").exec(readFileSync("/proc/self/status", "utf8"));
  return Number(kib) * KIB;
}

/**
 * Bytes that the process holds once the collector has run: `{ own, mapped? }`. `mapped` are pages of files. The system
 * takes them back when it needs memory.
 */
async function memoryUse() {
  for (let i = 0; i < 3; i++) {
    global.gc();
    await sleep(50);
  }
  const own = statusOf("RssAnon") ?? process.memoryUsage.rss();
  return { own, mapped: statusOf("RssFile") };
}

module.exports = { memoryUse };
