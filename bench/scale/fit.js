"use strict";

// From measured rows to costs.

const { median } = require("../stats.js");
const { fitWrites } = require("./writes.js");

/** Bytes of app data in the sessions that costs are taken from; of none, a session has three fields. */
const CONTENTS = { plain: 0, less: 128, more: 384 };
/** Bytes of app data in the sessions that check what lies between. */
const CHECKED_CONTENT = 256;

/** How a figure changes with the number of sessions: by as much for each ten times more, or not at all. */
const BY_DECADE = "by decade";
/** A store takes some bytes whatever it holds, which count less for each of more sessions. */
const SHARED = "shared";
const NOT = "not";
/** Nor does it change with what sessions hold. */
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

/** A figure from rows of several contents, and of a tenth of their size. */
function fitFigure(rows, size, name, change) {
  const of = (content, at = size) => rows.find(isAt(at, content))[name];
  if (change === NEVER)
    return { plain: of(CONTENTS.plain), base: of(CONTENTS.plain), perByte: 0, perDecade: 0, fixed: 0 };
  const more = changes(change) ? of(CONTENTS.plain, size / 10) - of(CONTENTS.plain) : 0;
  // Less time in a larger store is noise.
  const perDecade = change === BY_DECADE ? Math.max(0, -more) : 0;
  const fixed = change === SHARED ? Math.max(0, more / (10 / size - 1 / size)) : 0;
  const perByte = (of(CONTENTS.more) - of(CONTENTS.less)) / (CONTENTS.more - CONTENTS.less);
  const base = of(CONTENTS.less) - perByte * CONTENTS.less - fixed / size;
  return { plain: of(CONTENTS.plain) - fixed / size, base, perByte, perDecade, fixed };
}

/** Where the costs of a store are taken from. */
const calibrationOf = (store, size) => [
  ...Object.values(CONTENTS).map((content) => ({ store, size, content })),
  ...(Object.values(FIGURES[store]).some(changes) ? [{ store, size: size / 10, content: 0 }] : []),
];

/** The costs of the stores of which all the rows are there: `{ reference, memory?, file?, redis? }`. */
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

/** Whether the disk has counters of what is written. */
const isCounted = ({ written }) => written !== undefined;

/** What creates write and take, from the rows that all costs are from. */
function writesOf(rows, reference) {
  const isUsed = (row) => calibrationOf("file", reference).some((used) => isAt(used.size, used.content)(row));
  return fitWrites(rows.filter(isUsed));
}

/** The server's microseconds a call. They hardly depend on what a session holds. */
function cpuOf(rows) {
  const cpu = {};
  for (const [call, ways] of Object.entries(rows[0].cpu)) {
    cpu[call] = {};
    for (const how of Object.keys(ways)) cpu[call][how] = median(rows.map((row) => row.cpu[call][how]));
  }
  return cpu;
}

module.exports = { BY_DECADE, CHECKED_CONTENT, FIGURES, NEVER, SHARED, calibrationOf, fit };
