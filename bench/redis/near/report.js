"use strict";

const { medianRatio, plural, quantile, summary } = require("../../stats.js");
const { ratio, table, whole } = require("../../table.js");
const { BYTES } = require("../sessions.js");
const { atLeast, atMost } = require("../../limits.js");

const LABELS = {
  cached: "RedisStore, cache",
  memory: "MemoryStore",
  uncached: "RedisStore",
};

const SHAPES = { fluidauth: "FluidAuth's shape", json: `${BYTES} B of JSON` };
const ofShape = (rows, shape) => rows.filter((row) => row.shape === shape);

const HIT_LIMIT = 1.5;
const TRIP_LIMIT = 15;
const APP_LIMIT = 0.95;
/**
 * A logout counts as late if it takes effect more than a round trip and this many milliseconds after its
 * acknowledgement.
 */
const LATE = 5;

const roundsOf = (rows, store, figure) =>
  rows
    .find((row) => row.store === store)
    .rounds.map((round) => (figure === undefined ? round : round[figure]));

/** The median ratio of the store with a cache to another. */
const cachedTo = (rows, store, figure) =>
  medianRatio(roundsOf(rows, "cached", figure), roundsOf(rows, store, figure));

function rowsOf(rows, figure) {
  return rows.map(({ store }) => {
    const { median, low, high } = summary(roundsOf(rows, store, figure));
    const against = store === "cached" ? "" : ratio(cachedTo(rows, store, figure));
    return [LABELS[store], whole(median), `${whole(low)}-${whole(high)}`, against];
  });
}

const lateOnes = ({ seenFor, trip }) => seenFor.filter((millis) => millis > trip + LATE).length;

/** The sections of the report on the near cache: `{ title, body }[]`. */
function nearSections({ hits, logouts, load }) {
  const { seenFor, trip } = logouts;
  const millis = (value) => `${value.toFixed(2)} ms`;
  const rounds = plural(hits[0].rounds.length, "round");
  const all = [
    ...Object.entries(SHAPES).map(([shape, label]) => ({
      title:
        `The near cache: nanoseconds of an awaited get, one after the other, of random sessions of ${label}:\n` +
        `median and quartiles of ${rounds}. Less is better:`,
      body: table(["store", "ns", "quartiles", "cached/this"], rowsOf(ofShape(hits, shape)), 1),
    })),
    {
      title: `${plural(seenFor.length, "logout")} in another process, while this one reads the session all the time:`,
      body: [
        `round trip: ${millis(trip)} (median)`,
        `seen for so long after the acknowledgement: ${millis(quantile(seenFor, 0.5))} (median; below 0: not at all), ` +
          `${millis(Math.max(...seenFor))} (longest)`,
        `later than the round trip and ${LATE} ms: ${lateOnes(logouts)}`,
        `answered from the cache: ${logouts.hits}`,
      ].join("\n"),
    },
  ];
  if (load) {
    all.push({
      title:
        `Requests a second to an express-session app that reads, touchAfter 60 s: median and quartiles of ` +
        `${plural(load.rows[0].rounds.length, "round")}. More is better:`,
      body: table(["store", "requests/s", "quartiles", "cached/this"], rowsOf(load.rows, "perSecond"), 1),
    });
  }
  return all;
}

/** Judges a hit by the shape without parsing, because parsing takes the same time in every store. */
function judgeNear({ hits: all, logouts, load }) {
  const hits = ofShape(all, "fluidauth");
  const targets = [
    atMost("redis, near cache, await get against MemoryStore", HIT_LIMIT, "x", cachedTo(hits, "memory")),
    atLeast(
      "redis, near cache, await get against the round trip",
      TRIP_LIMIT,
      "x",
      1 / cachedTo(hits, "uncached"),
    ),
    atMost(
      `redis, near cache, logouts seen later than the round trip and ${LATE} ms`,
      0,
      "",
      lateOnes(logouts),
    ),
  ];
  if (!load) return targets;
  const app = cachedTo(load.rows, "memory", "perSecond");
  return [
    ...targets,
    atLeast("redis, near cache, express-session app against MemoryStore", APP_LIMIT, "x", app),
  ];
}

module.exports = { judgeNear, nearSections };
