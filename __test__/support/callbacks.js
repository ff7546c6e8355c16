"use strict";

/** All that a call hands to its callback, as an array. Fails if it returns something, or calls back twice. */
function callingBack(call) {
  return new Promise((resolve, reject) => {
    let isCalled = false;
    const returned = call((...args) => {
      if (isCalled) throw new Error("called back twice");
      isCalled = true;
      // Time for a second call to come.
      setImmediate(resolve, args);
    });
    if (returned !== undefined) reject(new Error(`a call with a callback returned ${typeof returned}`));
  });
}

module.exports = { callingBack };
