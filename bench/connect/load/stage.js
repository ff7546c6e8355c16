"use strict";

const path = require("node:path");
const { settleDisk } = require("../../disk.js");
const { withChildren } = require("../../spawn.js");
const { rotated } = require("../../stats.js");
const { usableCores } = require("../cores.js");

const SERVER = path.join(__dirname, "server.js");
const CANNON = path.join(__dirname, "cannon.js");

/** The one last that makes the stores grow. */
const ROUTES = ["/read", "/change", "/login"];

/** Has no session, so that one of the servers stands for all. */
const CEILING = "/plain";

/** The store whose sessions are touched before each round, as those of users who click more than once a minute. */
const IN_USE = "lazy";

/** Opens each of the stores in a server of its own and logs in: what to ask `cannon` for, by the store's name. */
async function openAll({ plan, directory, present, progress }, cannon, servers, core) {
  const targets = {};
  for (const [at, store] of present.entries()) {
    progress("load", `: ${plan.sessions} logins with ${store}`);
    const args = { store, directory: path.join(directory, `load-${store}`), core };
    const address = await servers[at].call("open", args);
    targets[store] = { address, connections: plan.connections };
    await cannon.call("login", { ...targets[store], sessions: plan.sessions });
  }
  return targets;
}

/** The stores in turn, and in each round another one first. The first round is for the compiler. */
async function loadRoute({ plan, progress }, cannon, targets, route, stores) {
  const rows = stores.map((store) => ({ route, store, rounds: [] }));
  for (let round = -1; round < plan.loadRounds; round++) {
    progress(`load, ${route}`, `: round ${round + 1} of ${plan.loadRounds}`);
    for (const { store, rounds } of rotated(rows, round)) {
      const target = { ...targets[store], path: route };
      if (store === IN_USE && route === "/read") await cannon.call("visit", target);
      settleDisk();
      const measured = await cannon.call("load", { ...target, seconds: plan.loadSeconds });
      if (round >= 0) rounds.push(measured);
    }
  }
  return rows;
}

/**
 * What autocannon sees of an app with each of the stores: `{ pinned, ceiling, rows }`, each row
 * `{ route, store, rounds: { perSecond, p99, … }[] }`. Where the machine has two cores, the servers have one of them
 * and autocannon another.
 */
async function runLoad(run) {
  const cores = usableCores();
  const pinned = cores.length > 1;
  const use = async (cannon, servers) => {
    if (pinned) await cannon.call("stayOn", cores.at(-1));
    const targets = await openAll(run, cannon, servers, pinned ? cores[0] : undefined);
    const [ceiling] = await loadRoute(run, cannon, targets, CEILING, run.present.slice(0, 1));
    const rows = [];
    for (const route of ROUTES) rows.push(...(await loadRoute(run, cannon, targets, route, run.present)));
    return { pinned, ceiling, rows };
  };
  const withServers = (cannon) =>
    withChildren(run.present.length, (...servers) => use(cannon, servers), SERVER);
  return withChildren(1, withServers, CANNON);
}

module.exports = { runLoad };
