"use strict";

const { readFileSync } = require("node:fs");
const { setTimeout: sleep } = require("node:timers/promises");

const KIB = 1024;

/** Returns the bytes in a line of the process's status, or `undefined` if the system has no such file. */
function statusOf(name) {
  if (process.platform !== "linux") return undefined;
  const [, kib] = new RegExp(`^${name}:\\s+(\\d+) kB$`, "m").exec(readFileSync("/proc/self/status", "utf8"));
  return Number(kib) * KIB;
}

/**
 * Returns the bytes that the process holds after garbage collection: `{ own, mapped? }`. `mapped`: pages of files,
 * which the system can reclaim.
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
