const { connectCases } = require("./connect.js");
const { connectStoreCases } = require("./connect-stores.js");
const { storeCases } = require("./stores.js");

function requestCases(runner, which) {
  if (process.env.WITHOUT_REQUESTS) return;
  // Here, as Express does not load everywhere.
  require("./requests.js").requestCases(runner, which);
}

/** What ConnectStore itself does. */
function connectSuite(runner) {
  connectCases(runner);
  requestCases(runner, { names: ["MemoryStore"], goesByDate: false });
}

/** What needs stores with timers of their own, and with a clock that follows a faked Date. */
function storesSuite(runner) {
  storeCases(runner);
  connectStoreCases(runner);
  requestCases(runner, { names: ["MemoryStore", "FileStore"], goesByDate: true });
}

module.exports = { connectSuite, storesSuite };
