"use strict";

const { spawnSync } = require("node:child_process");
const { lstatSync, mkdtempSync, readdirSync, rmSync, statfsSync } = require("node:fs");
const os = require("node:os");
const path = require("node:path");

const BLOCK = 512;
const FILE_SYSTEMS = new Map([
  [0xef53, "ext4"],
  [0x58465342, "XFS"],
  [0x9123683e, "Btrfs"],
  [0x2fc12fc1, "ZFS"],
  [0x794c7630, "overlay"],
  [0x01021994, "tmpfs"],
  [0x6969, "NFS"],
]);
const END_OF_PROCESS = ["SIGINT", "SIGTERM", "SIGHUP"];

/** Runs `use` with a new directory, and removes that afterwards in any case. */
async function withDirectory(parent, use) {
  const directory = mkdtempSync(path.join(parent, "native-store-bench-"));
  // Retried, because processes that write to it end a little later.
  const remove = () => rmSync(directory, { recursive: true, force: true, maxRetries: 10 });
  const exit = (signal) => process.exit(128 + os.constants.signals[signal]);
  process.on("exit", remove);
  for (const signal of END_OF_PROCESS) process.on(signal, exit);
  try {
    return await use(directory);
  } finally {
    remove();
    process.off("exit", remove);
    for (const signal of END_OF_PROCESS) process.off(signal, exit);
  }
}

/** Returns the bytes that a directory and its content take on the disk. */
function allocatedBytes(directory) {
  let bytes = lstatSync(directory).blocks * BLOCK;
  for (const entry of readdirSync(directory, { withFileTypes: true })) {
    const file = path.join(directory, entry.name);
    bytes += entry.isDirectory() ? allocatedBytes(file) : lstatSync(file).blocks * BLOCK;
  }
  return bytes;
}

function fileSystemOf(directory) {
  const { type } = statfsSync(directory);
  return FILE_SYSTEMS.get(type) ?? `file system 0x${type.toString(16)}`;
}

/** Flushes the page cache. Otherwise the next flush of a store would wait for the data of another one. */
const settleDisk = () => spawnSync("sync");

module.exports = { allocatedBytes, fileSystemOf, settleDisk, withDirectory };
