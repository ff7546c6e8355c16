"use strict";

const assert = require("node:assert/strict");
const { it } = require("node:test");
const { inspect } = require("node:util");
const { MemoryStore, SessionStoreError } = require("..");
const { fromNative } = require("../lib/errors.js");

it("SessionStoreError is an Error with a code", () => {
  const cause = new Error("why");
  const error = new SessionStoreError("ERR_STORE_FULL", "no room", { cause });
  assert.ok(error instanceof Error && error instanceof SessionStoreError);
  assert.equal(error.name, "SessionStoreError");
  assert.equal(error.code, "ERR_STORE_FULL");
  assert.equal(error.message, "no room");
  assert.equal(error.cause, cause);
  assert.equal(String(error), "SessionStoreError: no room");
  assert.match(error.stack, /^SessionStoreError: no room\n/);
  assert.deepEqual(Object.keys(error), ["code"]);
});

it("SessionStoreError has no cause by default", () => {
  assert.ok(!("cause" in new SessionStoreError("ERR_STORE_FULL", "no room")));
});

it("SessionStoreError shows its code when it is printed", () => {
  assert.match(inspect(new SessionStoreError("ERR_STORE_FULL", "no room")), /ERR_STORE_FULL/);
});

it("an error of Node-API becomes an internal error, and JavaScript's own errors are unchanged", () => {
  const native = Object.assign(new Error("Object expected"), { code: "ObjectExpected" });
  assert.equal(fromNative(native).code, "ERR_INTERNAL");
  assert.equal(fromNative(native).cause, native);
  const own = new TypeError("not a store");
  assert.equal(fromNative(own), own);
});

it("a method without its store rejects with a TypeError", async () => {
  const { get, create, update, touch, size } = new MemoryStore();
  for (const method of [get, create, update, touch, size]) await assert.rejects(method("x"), TypeError);
});

it("SessionStoreError can be subclassed", () => {
  class Other extends SessionStoreError {}
  assert.ok(new Other("ERR_STORE_FULL", "no room") instanceof SessionStoreError);
});
