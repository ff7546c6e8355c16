"use strict";

/** The error class of all stores. `code` is for programs, `message` is for people. */
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

/** Builds an error from a native code, such as "ERR_STORE_UNAVAILABLE:unknown:dns": code, outcome and reason. */
function makeError(nativeCode, message, options) {
  const [code, outcome, reason] = nativeCode.split(":");
  const error = new SessionStoreError(code, message, options);
  if (outcome) error.outcome = outcome;
  if (reason) error.reason = reason;
  return error;
}

/**
 * Converts the error of a native call to a `SessionStoreError`. Returns errors without a code unchanged: those are
 * JavaScript's own, such as the `TypeError` of a method without its `this`.
 */
function fromNative(error) {
  if (error instanceof SessionStoreError || typeof error?.code !== "string") return error;
  // Any other code comes from Node-API, after a wrong call by this package.
  if (!/^ERR_(SESSION|STORE|INVALID|INTERNAL|TOO_MANY)/.test(error.code)) {
    return new SessionStoreError("ERR_INTERNAL", error.message, { cause: error });
  }
  return makeError(error.code, error.message);
}

/** Makes the stack of an error start where the app called `method`, which is still running. */
function calledAt(method, error) {
  if (error instanceof SessionStoreError) Error.captureStackTrace(error, method);
  return error;
}

/** Runs `run` on behalf of `method`. The stack of an error starts where the app called `method`. */
function onBehalfOf(method, run) {
  try {
    return run();
  } catch (error) {
    throw calledAt(method, error);
  }
}

/** Returns an error with the code and reason of another error, which is its cause, and with another message. */
function withMessage(cause, message) {
  const { code, reason } = cause;
  return Object.assign(new SessionStoreError(code, message, { cause }), reason && { reason });
}

/** Describes the type of a value without its content. */
function kindOf(value) {
  if (value === null || value === undefined) return String(value);
  if (Array.isArray(value)) return "an array";
  if (value === "") return "an empty string";
  if (typeof value === "bigint") return "a BigInt";
  return `${typeof value === "object" ? "an" : "a"} ${typeof value}`;
}

/** The error for a mistake of the app, with a message of the caller. */
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
  withMessage,
};
