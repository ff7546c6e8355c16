"use strict";

// From the module, and at load: a suite with fake timers replaces the global.
const { setImmediate } = require("node:timers");

/**
 * Calls a callback of the app from inside a promise. What it throws becomes an uncaught exception, as with every
 * callback of Node.js. Otherwise it would reject the promise, and nobody would see it.
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
