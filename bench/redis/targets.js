"use strict";

const { atLeast, atMost } = require("../limits.js");
const { medianRatio } = require("../stats.js");
const { judgeNear } = require("./near/report.js");
const { OURS, labelOf } = require("./stores.js");

const PEER = "nodeRedis";
/** The minimum ratio of our speed to the peer's, by call and number in flight. */
const SPEED = {
  native: {
    get: { 1: 1.2, 64: 1.5, 1024: 1.4 },
    set: { 1: 1, 64: 1.2, 1024: 1.2 },
    touch: { 1: 1, 64: 1.3, 1024: 1.2 },
  },
  connect: {
    get: { 1: 1, 64: 1, 1024: 1 },
    set: { 1: 1, 64: 1, 1024: 1 },
    touch: { 1: 1, 64: 1, 1024: 1 },
  },
};
/** The same for RedisStore over TLS and in a cluster, by the number in flight. */
const SPEED_ELSEWHERE = { 64: 1.2, 1024: 1.2 };
/** The maximum ratio of our CPU time to the peer's. Most of the cost of express-session is in both. */
const CPU = { connect: 0.85, native: 0.7 };
/** The maximum ratio of our CPU time on the server to the peer's. */
const SERVER_CPU = { get: 1.1, set: 1.25, touch: 1.1 };

/** The targets of stores in Redis. None without a peer. */
function judge({ near, rows: all }) {
  const ofCalls = OURS.flatMap((name) =>
    all
      .filter(({ store }) => store === PEER)
      .flatMap((peer) => {
        const isSame = ({ servers, call, inFlight, store }) =>
          store === name && servers === peer.servers && call === peer.call && inFlight === peer.inFlight;
        return judgeRow(name, all.find(isSame), peer);
      }),
  );
  return near ? [...ofCalls, ...judgeNear(near)] : ofCalls;
}

/** The targets of a call on one kind of server, by the number in flight. */
function judgeRow(name, ours, peer) {
  const { servers, call, inFlight } = peer;
  const against = (figure) =>
    medianRatio(
      ours.rounds.map((round) => round[figure]),
      peer.rounds.map((round) => round[figure]),
    );
  const what = `redis, ${servers}, ${labelOf(name)}, ${call}, ${inFlight} in flight`;
  const speed = (limit) => atLeast(`${what}, speed against node-redis`, limit, "x", against("perSecond"));
  if (servers !== "plain") {
    return name === "native" && inFlight in SPEED_ELSEWHERE ? [speed(SPEED_ELSEWHERE[inFlight])] : [];
  }
  return [
    speed(SPEED[name][call][inFlight]),
    atMost(`${what}, main thread's CPU against node-redis`, CPU[name], "x", against("mainCpu")),
    atMost(`${what}, server's CPU against node-redis`, SERVER_CPU[call], "x", against("serverCpu")),
  ];
}

module.exports = { judge };
