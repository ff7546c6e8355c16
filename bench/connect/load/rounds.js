"use strict";

const path = require("node:path");
const { settleDisk } = require("../../disk.js");
const { withChildren } = require("../../spawn.js");
const { rotated } = require("../../stats.js");
const { usableCores } = require("../cores.js");

const CANNON = path.join(__dirname, "cannon.js");

/**
 * Runs autocannon against a server of each store, which a child of `script` opens: `{ pinned, ...result }`. `use`
 * receives the result of `openAll`. With two cores, the servers share one and autocannon has the other.
 */
async function withLoad(run, script, use) {
  const cores = usableCores();
  const pinned = cores.length > 1;
  const { length } = run.present;
  const load = (cannon) =>
    withChildren(
      length,
      async (...servers) => {
        if (pinned) await cannon.call("stayOn", cores.at(-1));
        const targets = await openAll(run, cannon, servers, pinned ? cores[0] : undefined);
        return { pinned, ...(await use({ ...run, cannon, targets })) };
      },
      script,
    );
  return withChildren(1, load, CANNON);
}

/** Opens each store in its own server, and logs in. Returns the requests for `cannon`, by the store's name. */
async function openAll(run, cannon, servers, core) {
  const { plan, directory, present, progress } = run;
  // By default a store has its own folder. Other kinds pass `placeOf`.
  const { placeOf = (store) => ({ directory: path.join(directory, `load-${store}`) }) } = run;
  const targets = {};
  for (const [at, store] of present.entries()) {
    progress("load", `: ${plan.sessions} logins with ${store}`);
    const args = { store, ...placeOf(store), core };
    const address = await servers[at].call("open", args);
    targets[store] = { address, connections: plan.connections };
    await cannon.call("login", { ...targets[store], sessions: plan.sessions });
  }
  return targets;
}

/**
 * Measures the stores round by round, and rotates their order: `{ route, store, rounds }[]`. `prepare` runs before each
 * measurement. Rounds before the first are for the compiler.
 */
async function loadRoute(run, route, { stores = run.present, rounds: total, prepare = () => {} }) {
  const { plan, progress, cannon, targets } = run;
  const { loadSeconds: seconds, loadWarmUp: warmUp } = plan;
  const rows = stores.map((store) => ({ route, store, rounds: [] }));
  for (let round = -plan.warmUpRounds; round < total; round++) {
    progress(`load, ${route}`, `: round ${round + 1} of ${total}`);
    for (const { store, rounds } of rotated(rows, round)) {
      const target = { ...targets[store], path: route };
      await prepare(store, target);
      settleDisk();
      const measured = await cannon.call("load", { ...target, seconds, warmUp });
      if (round >= 0) rounds.push(measured);
    }
  }
  return rows;
}

module.exports = { loadRoute, withLoad };
