"use strict";

// An express-session app whose store is replaced, and the browsers that were logged in before.

const assert = require("node:assert/strict");
const { ConnectStore } = require("../../connect.js");
const { Browser, SERVERS } = require("./connect-app.js");

const BROWSERS = 5;

/** Returns browsers that have logged in to the app with this store. */
async function logIn(store) {
  const app = await SERVERS.express(store);
  const browsers = Array.from({ length: BROWSERS }, () => new Browser());
  try {
    for (const browser of browsers) await browser.ask("POST", `${app.url}/login`);
  } finally {
    await app.stop();
  }
  return browsers;
}

/** Checks that they are still logged in to the app with the store of a bench. Then one of them logs out. */
async function assertStillLoggedIn(browsers, bench) {
  const store = new ConnectStore(bench.open());
  const app = await SERVERS.express(store);
  const me = (browser) => browser.ask("GET", `${app.url}/me`);
  try {
    for (const browser of browsers) assert.equal(await me(browser), "ada");
    await browsers[0].ask("POST", `${app.url}/logout`);
    assert.equal(await me(browsers[0]), "nobody");
    assert.equal(await me(browsers[1]), "ada");
  } finally {
    await app.stop();
    await store.close();
  }
}

module.exports = { assertStillLoggedIn, logIn };
