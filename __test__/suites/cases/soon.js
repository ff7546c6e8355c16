// The real ones, as this is loaded before a test replaces them.
const { clearTimeout, setTimeout } = require("node:timers");

// The runners end a test after 60 s.
const PATIENCE = 20_000;

/** A promise that must settle though the timers stand still. */
function soon(promise) {
  let timer;
  const late = new Promise((_resolve, reject) => {
    timer = setTimeout(() => reject(new Error("it never settles")), PATIENCE);
  });
  return Promise.race([promise, late]).finally(() => clearTimeout(timer));
}

module.exports = { soon };
