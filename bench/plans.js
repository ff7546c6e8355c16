"use strict";

/** As thorough as it is worth waiting for. */
const FULL = {
  sizes: {
    fluidauth: [1000, 10_000, 100_000, 1_000_000],
    express: [1000, 10_000, 100_000, 1_000_000],
  },
  rounds: 21,
  callShare: 1,
  memorySizes: { fluidauth: [100_000, 1_000_000], express: [100_000, 1_000_000] },
  gapSize: 1_000_000,
  gapRuns: 5,
  churnSizes: [1_000_000, 3_000_000],
  churnRuns: 3,
  churnSeconds: 10,
  fileSize: 1_000_000,
  getRounds: 21,
  createRounds: 5,
  createSeconds: 1,
  createGapSeconds: 3,
  openRounds: 11,
  fileGapRuns: 5,
  sessions: 10_000,
  connections: 50,
  loadRounds: 11,
  loadSeconds: 0.5,
  loadWarmUp: 0.3,
  warmUpRounds: 1,
  raceRounds: 200,
};

/** All of it in less than three minutes, with the same stores and calls. */
const QUICK = {
  sizes: { fluidauth: [1000, 10_000, 100_000], express: [10_000] },
  rounds: 3,
  callShare: 1 / 10,
  memorySizes: { fluidauth: [100_000], express: [100_000] },
  gapSize: 50_000,
  gapRuns: 1,
  churnSizes: [100_000],
  churnRuns: 1,
  churnSeconds: 1,
  fileSize: 10_000,
  getRounds: 3,
  createRounds: 1,
  createSeconds: 0.25,
  createGapSeconds: 0.5,
  openRounds: 3,
  fileGapRuns: 1,
  sessions: 200,
  connections: 50,
  loadRounds: 1,
  loadSeconds: 0.2,
  loadWarmUp: 0.1,
  warmUpRounds: 0,
  raceRounds: 5,
};

module.exports = { FULL, QUICK };
