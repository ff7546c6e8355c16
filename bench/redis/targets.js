"use strict";

const { atLeast, atMost } = require("../limits.js");
const { medianRatio } = require("../stats.js");
const { judgeNear } = require("./near/report.js");
const { OURS, labelOf } = require("./stores.js");

const PEER = "nodeRedis";
/** How fast each of ours has to be, as a share of the peer's speed, by the call and the number in flight. */
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
/** The same of RedisStore itself over TLS and in a cluster, where that many are in flight. */
const SPEED_ELSEWHERE = { 64: 1.2, 1024: 1.2 };
/** The share of the peer's processor time. Most of what a session of express-session takes is in both. */
const CPU = { connect: 0.85, native: 0.7 };
/** The share of what the peer costs the server. */
const SERVER_CPU = { get: 1.1, set: 1.25, touch: 1.1 };

/** The targets of stores in Redis; none where there is nothing to compare with. */
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

/** The targets of a call on one kind of servers, from so many in flight. */
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
