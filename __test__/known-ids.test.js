"use strict";

const assert = require("node:assert/strict");
const { randomBytes } = require("node:crypto");
const { describe, it } = require("node:test");
const fc = require("fast-check");
const { KnownIds } = require("../lib/connect/known-ids.js");

const MINUTE = 60_000;

describe("KnownIds", () => {
  it("keeps ids for an hour, and forgets them soon after", () => {
    let now = 0;
    const ids = new KnownIds({ now: () => now });
    for (let minute = 0; minute < 300; minute++) {
      now = minute * MINUTE;
      ids.add(`of ${minute}`);
      for (let age = 0; age < 60; age++) {
        if (age <= minute) assert.ok(ids.has(`of ${minute - age}`), `after ${age} minutes`);
      }
      for (let age = 75; age <= minute; age++)
        assert.ok(!ids.has(`of ${minute - age}`), `after ${age} minutes`);
    }
  });

  it("keeps ids longer when they are added again", () => {
    let now = 0;
    const ids = new KnownIds({ now: () => now });
    for (; now < 600 * MINUTE; now += 50 * MINUTE) {
      ids.add("often");
      assert.ok(ids.has("often"));
    }
    assert.ok(ids.has("often"));
  });

  it("forgets all ids after an idle hour", () => {
    let now = 0;
    const ids = new KnownIds({ now: () => now });
    ids.add("a");
    now = 60 * MINUTE - 1;
    assert.ok(ids.has("a"));
    now = 60 * MINUTE;
    assert.ok(!ids.has("a"));
    ids.add("b");
    assert.ok(ids.has("b"));
    assert.ok(!ids.has("a"));
  });

  it("keeps at least a million ids, but not an unlimited number", () => {
    const ids = new KnownIds({ now: () => 0 });
    for (let n = 0; n < 1_000_000; n++) ids.add(`${n}`);
    for (let n = 0; n < 1_000_000; n += 997) assert.ok(ids.has(`${n}`));
    for (let n = 1_000_000; n < 1_200_000; n++) ids.add(`${n}`);
    assert.ok(ids.has("1199999"));
    assert.ok(!ids.has("0"));
  });

  it("distinguishes ids", () => {
    const ids = new KnownIds();
    const random = () => randomBytes(24).toString("base64url");
    for (let n = 0; n < 100_000; n++) ids.add(random());
    for (let n = 0; n < 100_000; n++) assert.ok(!ids.has(random()));
    for (let n = 0; n < 100_000; n++) assert.ok(!ids.has(`${n}`));
  });

  it("contains exactly the added ids, whatever their text", () => {
    const numRuns = 300;
    const property = fc.property(
      fc.array(fc.string({ unit: "binary" })),
      fc.array(fc.string({ unit: "binary", maxLength: 3 })),
      (added, others) => {
        const ids = new KnownIds();
        for (const id of added) ids.add(id);
        for (const id of [...added, ...others]) assert.equal(ids.has(id), added.includes(id));
      },
    );
    fc.assert(property, { numRuns });
    console.log(`property cases: ${numRuns}`);
  });
});
