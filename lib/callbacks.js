"use strict";

// Import the function at load: tests with fake timers replace the global one.
const { setImmediate } = require("node:timers");

/**
 * Calls a callback of the app from inside a promise. An error that it throws becomes an uncaught exception, as with
 * every Node.js callback. Otherwise it would reject a promise that nobody handles.
 */
function callOutside(callback, ...args) {
  try {
    callback(...args);
  } catch (error) {
    setImmediate(() => {
      throw error;
    });
  }
}

module.exports = { callOutside };
