"use strict";

// An Express app with each store of express-session on Redis.
const path = require("node:path");
const { loadRoute, withLoad } = require("../../connect/load/rounds.js");

const SERVER = path.join(__dirname, "server.js");
const ROUTES = ["/read", "/change"];

/** `{ rows: { route, store, rounds }[] }`. `present`: the names of the stores. */
function measureApp({ servers, present }, plan, report) {
  const progress = (step, detail) => report(`redis, app, ${step}`, detail);
  const run = { plan, placeOf: () => ({ servers }), present, progress };
  return withLoad(run, SERVER, async (loading) => {
    const rows = [];
    for (const route of ROUTES) rows.push(...(await loadRoute(loading, route, { rounds: plan.redisRounds })));
    return { rows };
  });
}

module.exports = { measureApp };
