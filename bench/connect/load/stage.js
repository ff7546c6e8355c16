"use strict";

const path = require("node:path");
const { loadRoute, withLoad } = require("./rounds.js");

const SERVER = path.join(__dirname, "server.js");

/** The last one makes the stores grow. */
const ROUTES = ["/read", "/change", "/login"];

/** A route without a session, which is the same for all servers. */
const CEILING = "/plain";

/** The store whose sessions are touched before each round, like those of users who click more than once a minute. */
const IN_USE = "lazy";

/**
 * Measures an app with each store by autocannon: `{ pinned, ceiling, rows }`, each row `{ route, store, rounds: {
 * perSecond, p99, … }[] }`.
 */
function runLoad(run) {
  const { loadRounds: rounds } = run.plan;
  return withLoad(run, SERVER, async (loading) => {
    const prepare = async (store, target) => {
      if (store === IN_USE && target.path === "/read") await loading.cannon.call("visit", target);
    };
    const [ceiling] = await loadRoute(loading, CEILING, { stores: run.present.slice(0, 1), rounds });
    const rows = [];
    for (const route of ROUTES) rows.push(...(await loadRoute(loading, route, { rounds, prepare })));
    return { ceiling, rows };
  });
}

module.exports = { runLoad };
