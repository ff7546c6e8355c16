"use strict";

const { existsSync, readFileSync, readdirSync, realpathSync, statSync } = require("node:fs");
const path = require("node:path");

const SECTOR = 512;
/** The columns of the sectors written and the flush requests (Documentation/block/stat.rst of Linux). */
const SECTORS_WRITTEN = 6;
const FLUSHES = 15;

/** Decodes the number of a block device on Linux: `MAJOR:MINOR`. */
function numberOf(device) {
  const major = ((device >> 8n) & 0xfffn) | ((device >> 32n) & ~0xfffn);
  const minor = (device & 0xffn) | ((device >> 12n) & ~0xffn);
  return `${major}:${minor}`;
}

/** Decodes the octal escapes of that file, such as \040 for a space. */
const plain = (text) => text.replace(/\\(\d{3})/g, (_, octal) => String.fromCharCode(Number(`0o${octal}`)));

function readMount(line) {
  const [of, after] = line.split(" - ");
  const [type, source, options] = after.split(" ").map(plain);
  return { point: plain(of.split(" ")[4]), type, source, options };
}

/** Returns the mount of a folder: `{ point, type, source, options }`. */
function mountOf(folder) {
  const mounts = readFileSync("/proc/self/mountinfo", "utf8").trim().split("\n").map(readMount);
  const holds = ({ point }) => point === "/" || folder === point || folder.startsWith(`${point}/`);
  // A later mount at the same point hides the earlier one.
  return mounts
    .filter(holds)
    .reduce((best, mount) => (mount.point.length >= best.point.length ? mount : best), { point: "" });
}

/** Returns the number of the block device below a folder. Throws the reason if there is none. */
function deviceNumberOf(folder) {
  const number = numberOf(statSync(folder, { bigint: true }).dev);
  if (existsSync(`/sys/dev/block/${number}`)) return number;
  const { type, source, options } = mountOf(realpathSync(folder));
  if (type === "overlay") {
    const [, upper] = /(?:^|,)upperdir=([^,]*)/.exec(options) ?? [];
    if (upper !== undefined && existsSync(upper)) return deviceNumberOf(upper);
    throw new Error("the upper folder of the overlay cannot be seen from here");
  }
  // On Btrfs the device number of a file is not that of a disk.
  const device =
    source.startsWith("/dev/") && existsSync(source) ? statSync(source, { bigint: true }) : undefined;
  if (device === undefined) throw new Error(`${type} is on no block device`);
  return numberOf(device.rdev);
}

/** Returns the disk below a device. The kernel counts flushes per disk, not per partition or logical volume. */
function diskOf(number) {
  let device = realpathSync(`/sys/dev/block/${number}`);
  for (;;) {
    const slaves = path.join(device, "slaves");
    const below = existsSync(slaves) ? readdirSync(slaves) : [];
    if (below.length === 1) device = realpathSync(path.join(slaves, below[0]));
    else if (existsSync(path.join(device, "partition"))) device = path.dirname(device);
    else return device;
  }
}

/** The counters of the disk of a folder. They count the writes of all processes on the machine. */
class DiskCounters {
  #file;

  /** Throws the reason if there are no counters. */
  constructor(folder) {
    if (process.platform !== "linux") throw new Error("only Linux has the counters");
    const disk = diskOf(deviceNumberOf(folder));
    this.name = path.basename(disk);
    this.#file = path.join(disk, "stat");
    if (this.read().flushes === undefined)
      throw new Error("this kernel counts no flushes: Linux 5.5 is the first");
  }

  /** Returns the bytes written and the flushes since the system start. */
  read() {
    const counters = readFileSync(this.#file, "utf8").trim().split(/\s+/).map(Number);
    return { bytes: counters[SECTORS_WRITTEN] * SECTOR, flushes: counters[FLUSHES] };
  }
}

/** Returns the counters, or `{ reason }` if there are none. */
function diskCountersOf(folder) {
  try {
    return { counters: new DiskCounters(folder) };
  } catch (error) {
    return { reason: error.message };
  }
}

module.exports = { diskCountersOf };
