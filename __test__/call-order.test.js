"use strict";

const assert = require("node:assert/strict");
const { describe, it } = require("node:test");
const { CallOrder } = require("../lib/connect/call-order.js");

/** Calls that the test completes, and the order in which they started. */
class Bed {
  order = new CallOrder();
  begun = [];
  #ends = new Map();

  call(name, { twoSteps = false } = {}) {
    return () => {
      this.begun.push(name);
      if (twoSteps) this.order.twoSteps();
      return new Promise((resolve, reject) => this.#ends.set(name, { resolve, reject }));
    };
  }

  async end(name, error) {
    const { resolve, reject } = this.#ends.get(name);
    if (error) reject(error);
    else resolve(name);
    await settle();
  }
}

/** Runs all ready callbacks. */
const settle = () => new Promise(setImmediate);

describe("CallOrder", () => {
  it("starts one-step calls immediately", async () => {
    const bed = new Bed();
    bed.order.write("a", bed.call("write"));
    bed.order.read("a", bed.call("read"));
    bed.order.write("a", bed.call("other"));
    assert.deepEqual(bed.begun, ["write", "read", "other"]);
    assert.equal(bed.order.isBusy("a"), false);
  });

  it("makes all calls wait for a two-step call, and then starts them together, in order", async () => {
    const bed = new Bed();
    bed.order.write("a", bed.call("long", { twoSteps: true }));
    for (let at = 0; at < 3; at++) {
      bed.order.read("a", bed.call(`read ${at}`));
      bed.order.write("a", bed.call(`write ${at}`));
    }
    bed.order.write("b", bed.call("of another"));
    await settle();
    assert.deepEqual(bed.begun, ["long", "of another"]);
    await bed.end("long");
    // They start without waiting for each other: the store keeps the order of started calls.
    assert.deepEqual(
      bed.begun.filter((name) => name.startsWith("write")),
      ["write 0", "write 1", "write 2"],
    );
    assert.equal(bed.begun.length, 8);
    for (let at = 1; at < 3; at++) {
      assert.ok(
        bed.begun.indexOf(`write ${at - 1}`) < bed.begun.indexOf(`read ${at}`),
        "a read before its write",
      );
    }
    assert.equal(bed.order.isBusy("a"), false);
  });

  it("never runs two two-step calls of a session concurrently", async () => {
    const bed = new Bed();
    for (let at = 0; at < 3; at++) bed.order.write("a", bed.call(`long ${at}`, { twoSteps: true }));
    bed.order.read("a", bed.call("read"));
    for (let at = 0; at < 3; at++) {
      await settle();
      assert.equal(bed.begun.length, at + 1);
      await bed.end(`long ${at}`);
    }
    assert.deepEqual(bed.begun, ["long 0", "long 1", "long 2", "read"]);
  });

  it("fails the calls that waited for a store without an answer, and tries again for later calls", async () => {
    const bed = new Bed();
    const noAnswer = Object.assign(new Error("no answer"), {
      code: "ERR_STORE_TIMEOUT",
      outcome: "unknown",
      reason: "network",
    });
    const calls = [
      bed.order.write("a", bed.call("long", { twoSteps: true })),
      bed.order.write("a", bed.call("write")),
      bed.order.read("a", bed.call("read")),
      bed.order.write("a", bed.call("last", { twoSteps: true })),
    ];
    const ended = Promise.allSettled(calls);
    await settle();
    await bed.end("long", noAnswer);
    const errors = (await ended).map(({ reason: error }) => [error.code, error.reason, error.outcome]);
    // Calls that did not start have changed nothing.
    const none = ["ERR_STORE_TIMEOUT", "network", undefined];
    assert.deepEqual(errors, [["ERR_STORE_TIMEOUT", "network", "unknown"], none, none, none]);
    assert.deepEqual(bed.begun, ["long"]);
    bed.order.read("a", bed.call("later"));
    assert.deepEqual(bed.begun, ["long", "later"]);
  });

  it("continues after a failed call, which fails alone", async () => {
    const bed = new Bed();
    const failing = bed.order.write("a", bed.call("long", { twoSteps: true }));
    const waiting = bed.order.write("a", bed.call("write"));
    const error = new Error("no");
    const failed = assert.rejects(failing, error);
    await bed.end("long", error);
    await failed;
    await bed.end("write");
    assert.equal(await waiting, "write");
  });

  it("refuses a call if too many wait, and accepts calls again later", async () => {
    const bed = new Bed();
    bed.order.write("a", bed.call("long", { twoSteps: true }));
    const reads = Array.from({ length: 256 }, (_, at) => bed.order.read("a", bed.call(`read ${at}`)));
    await assert.rejects(bed.order.read("a", bed.call("too many")), { code: "ERR_STORE_BUSY" });
    await bed.end("long");
    for (let at = 0; at < 256; at++) await bed.end(`read ${at}`);
    await Promise.all(reads);
    bed.order.read("a", bed.call("later"));
    assert.ok(bed.begun.includes("later") && !bed.begun.includes("too many"));
  });

  it("orders a call on all sessions with calls on single sessions", async () => {
    const bed = new Bed();
    bed.order.write("a", bed.call("long", { twoSteps: true }));
    bed.order.write("a", bed.call("before"));
    bed.order.writeAll(bed.call("all"));
    bed.order.read("b", bed.call("after"));
    await settle();
    assert.deepEqual(bed.begun, ["long"]);
    await bed.end("long");
    assert.deepEqual(bed.begun, ["long", "before", "all"]);
    await bed.end("all");
    assert.deepEqual(bed.begun, ["long", "before", "all", "after"]);
    assert.equal(bed.order.idle(), undefined);
  });
});
