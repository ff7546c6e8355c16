"use strict";

/** The one class of errors of every store: `code` is for programs, `message` for people. */
class SessionStoreError extends Error {
  constructor(code, message, options) {
    super(message, options);
    this.code = code;
  }
}

Object.defineProperty(SessionStoreError.prototype, "name", {
  value: "SessionStoreError",
  configurable: true,
  writable: true,
});

/** An error of the addon's: where it is not known what became of a write, its code ends by saying so. */
function makeError(nativeCode, message, options) {
  const [code, outcome] = nativeCode.split(":");
  const error = new SessionStoreError(code, message, options);
  if (outcome !== undefined) error.outcome = outcome;
  return error;
}

/** The error of a native call, as the class that users know. */
function fromNative(error) {
  if (error instanceof SessionStoreError) return error;
  // A code of another kind is Node-API's own: a call that this package should not have made.
  const code = /^ERR_(SESSION|STORE|INVALID)_/.test(error?.code) ? error.code : "ERR_STORE_CORRUPT";
  return makeError(code, error?.message ?? String(error), { cause: error });
}

/** What a value is, in words that do not show its content. */
function kindOf(value) {
  if (value === null || value === undefined) return String(value);
  if (Array.isArray(value)) return "an array";
  if (value === "") return "an empty string";
  if (typeof value === "bigint") return "a BigInt";
  return `${typeof value === "object" ? "an" : "a"} ${typeof value}`;
}

/** The error for an option that is none, or out of range. */
function invalidOption(option, expected, given) {
  return new SessionStoreError("ERR_INVALID_OPTION", `${option} must be ${expected}; got ${given}`);
}

module.exports = { SessionStoreError, makeError, fromNative, invalidOption, kindOf };
