"use strict";

/**
 * Measured costs. `npm run bench -- --part scale` prints them, and checks their predictions. Machine: 2 cores of an
 * Intel Xeon (Sapphire Rapids, 2.3 GHz) in a virtual machine with 23 GB of memory, ext4, Node 20 and Redis 7.0.
 *
 * `plain`: a session of FluidAuth's three fields. `base`: a session with app data. `perByte`: added for each byte of
 * the data's JSON. `perDecade`: added for each tenfold of `reference` sessions. `fixed`: shared by all sessions. Each
 * session has another user, which is the worst case for the user index.
 */
const COSTS = {
  reference: 1000000,
  memory: {
    figures: {
      bytes: { plain: 82.75, base: 180, perByte: 1.174, fixed: 1543000 },
      get: { plain: 1050, base: 922.7, perByte: 5.578, perDecade: 137.2 },
      create: { plain: 2379, base: 6844, perByte: 10.57 },
      sweep: { plain: 919, base: 685.8, perByte: 5.487 },
    },
  },
  file: {
    figures: {
      bytes: { plain: 308.2, base: 599.2, perByte: 1.34, fixed: 22170000 },
      open: { plain: 1.395, base: 1.395 },
      get: { plain: 2551, base: 2820, perByte: 1.907, perDecade: 1479 },
      sweep: { plain: 45880, base: 53230, perByte: 82.42, perDecade: 27420 },
    },
    writes: { recordBytes: 600, changedShare: 0.1, nsACreate: 6847, nsAByte: 3.246 },
  },
  redis: {
    figures: { bytes: { plain: 577.9, base: 609.9, perByte: 1 } },
    cpu: {
      get: { spread: 9.767, together: 3.797 },
      touch: { spread: 15.41, together: 11.09 },
      create: { spread: 18.67, together: 28.99 },
    },
  },
};

/** Assumptions, not measured: the load, and the available machines. */
const CHOICES = {
  content: 384,
  secondsBetweenRequests: 100,
  touchShare: 0.1,
  lifetimeSeconds: 7 * 24 * 3600,
  machine: { memory: 64e9, cores: 8, diskBytesPerSecond: 200e6 },
  /** The share of the memory for sessions. The rest is for the system and the app, or the copy of a fork. */
  usableMemory: 0.75,
  /** The maximum average utilization of a core or a disk, to leave room for peaks. */
  busyShare: 0.5,
  shardBytes: 16e9,
  replicas: 1,
  /** `cluster-node-timeout` of 15 s, and 2 s for the vote. */
  failoverSeconds: 17,
  /** The maximum lag of a replica. */
  lagSeconds: 1,
  networkBytesPerSecond: 125e6,
};

module.exports = { CHOICES, COSTS };
