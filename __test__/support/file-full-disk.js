"use strict";

// A store on a disk that is full: `node file-full-disk.js <mount point> <size of a session> [others]`, where `others`
// says that files of others take most of the disk. Fails where the store does not do what it should.

const assert = require("node:assert/strict");
const fs = require("node:fs");
const path = require("node:path");
const { FileStore } = require("../..");
const { Filling } = require("./file-filling.js");

const [, , disk, size, others] = process.argv;

/** Takes what is left of the disk. */
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

  // Whatever was left, a store that is full must get along without it.
  if (!others) fillDisk(ballast);
  await filling.touch(3000);
  await filling.expire(50);
  await filling.deleteByUser();
  await filling.delete(filling.live.size / 2);
  await filling.check();
  // Pages that are half empty are no room: what makes some for sure is to end nearly all.
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
