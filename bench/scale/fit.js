"use strict";

// Derives costs from measured rows.

const { median } = require("../stats.js");
const { fitWrites } = require("./writes.js");

/** Bytes of app data in the sessions for the costs. Without any, a session has three fields. */
const CONTENTS = { plain: 0, less: 128, more: 384 };
/** Bytes of app data in the sessions for the check between these. */
const CHECKED_CONTENT = 256;

/** How a figure depends on the number of sessions: it changes by a constant for each tenfold. */
const BY_DECADE = "by decade";
/** All sessions share a fixed part. */
const SHARED = "shared";
const NOT = "not";
/** It depends neither on the number nor on the content of sessions. */
const NEVER = "never";

const FIGURES = {
  memory: { bytes: SHARED, get: BY_DECADE, create: BY_DECADE, sweep: BY_DECADE },
  file: {
    bytes: SHARED,
    open: NEVER,
    get: BY_DECADE,
    sweep: BY_DECADE,
  },
  redis: { bytes: NOT },
};

const changes = (change) => change === SHARED || change === BY_DECADE;

const isAt = (size, content) => (row) => row.size === size && row.content === content;

/** Fits a figure to rows with several contents, and to a row with a tenth of the sessions. */
function fitFigure(rows, size, name, change) {
  const of = (content, at = size) => rows.find(isAt(at, content))[name];
  if (change === NEVER)
    return { plain: of(CONTENTS.plain), base: of(CONTENTS.plain), perByte: 0, perDecade: 0, fixed: 0 };
  const more = changes(change) ? of(CONTENTS.plain, size / 10) - of(CONTENTS.plain) : 0;
  // A decrease in a larger store is noise.
  const perDecade = change === BY_DECADE ? Math.max(0, -more) : 0;
  const fixed = change === SHARED ? Math.max(0, more / (10 / size - 1 / size)) : 0;
  const perByte = (of(CONTENTS.more) - of(CONTENTS.less)) / (CONTENTS.more - CONTENTS.less);
  const base = of(CONTENTS.less) - perByte * CONTENTS.less - fixed / size;
  return { plain: of(CONTENTS.plain) - fixed / size, base, perByte, perDecade, fixed };
}

/** The rows from which the costs of a store are derived. */
const calibrationOf = (store, size) => [
  ...Object.values(CONTENTS).map((content) => ({ store, size, content })),
  ...(Object.values(FIGURES[store]).some(changes) ? [{ store, size: size / 10, content: 0 }] : []),
];

/** Derives the costs of the stores whose rows are complete: `{ reference, memory?, file?, redis? }`. */
function fit(rows, reference) {
  const costs = { reference };
  for (const [store, figures] of Object.entries(FIGURES)) {
    const ofStore = rows.filter((row) => row.store === store);
    const isThere = ({ size, content }) => ofStore.some(isAt(size, content));
    if (!calibrationOf(store, reference).every(isThere)) continue;
    costs[store] = {
      figures: Object.fromEntries(
        Object.entries(figures).map(([name, change]) => [name, fitFigure(ofStore, reference, name, change)]),
      ),
    };
    if (store === "file" && ofStore.every(isCounted)) costs.file.writes = writesOf(ofStore, reference);
    if (store === "redis") costs.redis.cpu = cpuOf(ofStore);
  }
  return costs;
}

/** Whether the disk writes were counted. */
const isCounted = ({ written }) => written !== undefined;

/** Fits the bytes and the time of creates to these rows. */
function writesOf(rows, reference) {
  const isUsed = (row) => calibrationOf("file", reference).some((used) => isAt(used.size, used.content)(row));
  return fitWrites(rows.filter(isUsed));
}

/** The server's CPU time per call in microseconds. It hardly depends on the content of sessions. */
function cpuOf(rows) {
  const cpu = {};
  for (const [call, ways] of Object.entries(rows[0].cpu)) {
    cpu[call] = {};
    for (const how of Object.keys(ways)) cpu[call][how] = median(rows.map((row) => row.cpu[call][how]));
  }
  return cpu;
}

module.exports = { BY_DECADE, CHECKED_CONTENT, FIGURES, NEVER, SHARED, calibrationOf, fit };
