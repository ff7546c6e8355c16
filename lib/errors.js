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

/** Makes the error of a native code, such as "ERR_STORE_UNAVAILABLE:unknown:dns": code, outcome and reason. */
function makeError(nativeCode, message, options) {
  const [code, outcome, reason] = nativeCode.split(":");
  const error = new SessionStoreError(code, message, options);
  if (outcome) error.outcome = outcome;
  if (reason) error.reason = reason;
  return error;
}

/**
 * Converts the error of a native call to a `SessionStoreError`. An error without a code is JavaScript's own, such as the
 * `TypeError` of a method without its `this`, and stays as it is.
 */
function fromNative(error) {
  if (error instanceof SessionStoreError || typeof error?.code !== "string") return error;
  // Any other code is Node-API's own: this package made a call that it should not have made.
  if (!/^ERR_(SESSION|STORE|INVALID|INTERNAL|TOO_MANY)/.test(error.code)) {
    return new SessionStoreError("ERR_INTERNAL", error.message, { cause: error });
  }
  return makeError(error.code, error.message);
}

/** Begins the stack of an error where the app called `method`, which is under way. */
function calledAt(method, error) {
  if (error instanceof SessionStoreError) Error.captureStackTrace(error, method);
  return error;
}

/** Runs what the app called `method` for. The stack of its error begins at that call. */
function onBehalfOf(method, run) {
  try {
    return run();
  } catch (error) {
    throw calledAt(method, error);
  }
}

/** What a value is, in words that do not show its content. */
function kindOf(value) {
  if (value === null || value === undefined) return String(value);
  if (Array.isArray(value)) return "an array";
  if (value === "") return "an empty string";
  if (typeof value === "bigint") return "a BigInt";
  return `${typeof value === "object" ? "an" : "a"} ${typeof value}`;
}

/** The error for what the app has done wrong, in words of its own. */
function misuse(message, options) {
  return new SessionStoreError("ERR_INVALID_OPTION", message, options);
}

/** The error for an option whose value is not accepted. */
function invalidOption(option, expected, given) {
  return misuse(`${option} must be ${expected}; got ${given}`);
}

module.exports = {
  SessionStoreError,
  calledAt,
  onBehalfOf,
  makeError,
  fromNative,
  invalidOption,
  kindOf,
  misuse,
};
