"use strict";

/** Returns the arguments of a call's callback. Fails if the call returns a value, or calls back twice. */
function callingBack(call) {
  return new Promise((resolve, reject) => {
    let isCalled = false;
    const returned = call((...args) => {
      if (isCalled) throw new Error("called back twice");
      isCalled = true;
      // Wait for a possible second call.
      setImmediate(resolve, args);
    });
    if (returned !== undefined) reject(new Error(`a call with a callback returned ${typeof returned}`));
  });
}

module.exports = { callingBack };
