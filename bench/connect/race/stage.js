"use strict";

const path = require("node:path");
const { closedLoop } = require("../../closed-loop.js");
const { withChildren } = require("../../spawn.js");
const { CASES, titleOf } = require("./cases.js");
const { checkApp, race } = require("./round.js");

const SERVER = path.join(__dirname, "server.js");

// Concurrent rounds. Many, because one store waits a quarter of a second before it reports an absent session.
const AT_ONCE = 50;

/** Counts the sessions that came back in a number of rounds. */
async function countBack({ store, app, processes }, how, rounds, directory) {
  const change = how === "set";
  let back = 0;
  const use = async (...children) => {
    const args = { store, app, directory, resave: how === "resave" };
    const addresses = [];
    for (const child of children) addresses.push(await child.call("open", args));
    const servers = { slow: addresses[0], other: addresses.at(-1) };
    await checkApp(servers, change);
    await closedLoop(AT_ONCE, Array(rounds).keys(), async () => {
      if (await race(servers, change)) back++;
    });
  };
  await withChildren(processes, use, SERVER);
  return back;
}

/** `{ store, app, processes, rounds, back: { [how]: number } }[]` */
async function runRace({ plan: { raceRounds: rounds }, directory, present, progress }) {
  const rows = [];
  for (const { hows, ...which } of CASES.filter(({ store }) => present.includes(store))) {
    const back = {};
    for (const how of hows) {
      progress("race", `: ${titleOf(which)}, ${how}`);
      const name = `race-${which.store}-${which.app}-${which.processes}-${how}`;
      back[how] = await countBack(which, how, rounds, path.join(directory, name));
    }
    rows.push({ ...which, rounds, back });
  }
  return rows;
}

module.exports = { runRace };
