"use strict";

const { callOutside } = require("../callbacks.js");

/**
 * Passes the result of an operation to a callback, or returns the promise if there is no callback.
 *
 * The callback runs before the next tick. Until then Node.js buffers the part of a response that express-session has
 * written, and sends it together with the rest.
 */
function answer(operation, callback) {
  if (typeof callback !== "function") {
    // `req.session.destroy()` drops the promise. An unhandled rejection must not end the process.
    operation.catch(() => {});
    return operation;
  }
  operation.then(
    (value) => callOutside(callback, null, value),
    (error) => callOutside(callback, error),
  );
}

module.exports = { answer };
