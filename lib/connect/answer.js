"use strict";

/**
 * Hands the end of an operation to a callback, or returns its promise where there is none.
 *
 * The callback runs outside of every promise, so that what it throws is an uncaught exception, as it is for any
 * callback of Node's: inside one it would reject, and might call the callback again. But it runs before the next tick:
 * until then Node keeps back what express-session has written of an answer, and sends it together with the rest.
 */
function answer(operation, callback) {
  if (typeof callback !== "function") {
    // `req.session.destroy()` drops the promise: a rejection that nobody can see must not end the process.
    operation.catch(() => {});
    return operation;
  }
  operation.then(
    (value) => queueMicrotask(() => callback(null, value)),
    (error) => queueMicrotask(() => callback(error)),
  );
}

module.exports = { answer };
