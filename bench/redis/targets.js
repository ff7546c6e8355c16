"use strict";

const { atLeast, atMost } = require("../limits.js");
const { medianRatio } = require("../stats.js");
const { judgeNear } = require("./near/report.js");
const { OURS, labelOf } = require("./stores.js");

const PEER = "nodeRedis";
/** By how many are in flight: how fast ours has to be, as a share of the peer's speed. */
const SPEED = { 1: 0.9, 64: 1, 1024: 1 };
/** The share of the peer's processor time. Most of what a session of express-session takes is in both. */
const CPU = { connect: 0.85, native: 0.6 };

/** The targets of stores in Redis, on one server without TLS; none where there is nothing to compare with. */
function judge({ near, rows: all }) {
  const rows = all.filter(({ servers }) => servers === "plain");
  const peers = rows.filter(({ store }) => store === PEER);
  const ofCalls = OURS.flatMap((name) =>
    peers.flatMap(({ call, inFlight, rounds }) => {
      const ours = rows.find(
        (row) => row.store === name && row.call === call && row.inFlight === inFlight,
      ).rounds;
      const against = (figure) =>
        medianRatio(
          ours.map((round) => round[figure]),
          rounds.map((round) => round[figure]),
        );
      const what = `redis, ${labelOf(name)}, ${call}, ${inFlight} in flight`;
      return [
        atLeast(`${what}, speed against node-redis`, SPEED[inFlight], "x", against("perSecond")),
        atMost(`${what}, main thread's CPU against node-redis`, CPU[name], "x", against("mainCpu")),
      ];
    }),
  );
  return near ? [...ofCalls, ...judgeNear(near)] : ofCalls;
}

module.exports = { judge };
