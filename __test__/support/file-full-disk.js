"use strict";

// Tests a store on a full disk: `node file-full-disk.js <mount point> <size of a session> [others]`. With `others`,
// other files take most of the disk. Fails if the store misbehaves.

const assert = require("node:assert/strict");
const fs = require("node:fs");
const path = require("node:path");
const { FileStore } = require("../..");
const { Filling } = require("./file-filling.js");

const [, , disk, size, others] = process.argv;

/** Fills the rest of the disk. */
function fillDisk(file) {
  const fd = fs.openSync(file, "w");
  assert.throws(
    () => {
      for (;;) fs.writeSync(fd, Buffer.alloc(4096, 1));
    },
    { code: "ENOSPC" },
  );
  fs.closeSync(fd);
}

async function main() {
  const options = { path: path.join(disk, "sessions"), sweepInterval: 0 };
  const filling = new Filling(new FileStore(options), { size: Number(size), atOnce: 8 });
  const ballast = path.join(disk, "ballast");
  if (others) {
    await filling.fill(1);
    fillDisk(ballast);
  }
  const first = await filling.fill();
  await filling.check();

  // A full store must work without any free space.
  if (!others) fillDisk(ballast);
  await filling.touch(3000);
  await filling.expire(50);
  await filling.deleteByUser();
  await filling.delete(filling.live.size / 2);
  await filling.check();
  // Half-empty pages are no room. Ending nearly all sessions certainly makes some.
  await filling.delete(filling.live.size - 50);
  const again = await filling.fillAgain();
  assert.ok(again > (others ? 0 : first / 3), `${first} sessions went in at first, ${again} later`);
  await filling.check();

  await filling.store.close();
  filling.store = new FileStore(options);
  await filling.check();
  fs.rmSync(ballast);
  const more = others ? await filling.fillAgain() : 0;
  if (others) assert.ok(more > first, `${more} sessions went in once the disk had room`);
  await filling.check();
  await filling.delete(Infinity);
  assert.equal(await filling.store.size(), 0);
  await filling.store.close();
  console.log(JSON.stringify({ first, again, more, largest: filling.largest }));
}

main().catch((error) => {
  console.error(error);
  process.exit(1);
});
