"use strict";

// Models the writes of a create in a FileStore. A create goes to the redo log, and in a drain to pages of the data
// file. A drain writes each changed page once: in a small file creates share pages, in a large file they do not.

const LOG_BYTES = 16 * 1024 * 1024;
const PAGE_BYTES = 4096;
/** The best fit for stores of 100 000 and 1 000 000 sessions. Not derived from LMDB's code. */
const PAGES_A_CREATE = 4;
/** The JSON of the three fields. A plain record does not contain it. */
const FIELDS_BYTES = 116;

/** Returns the bytes written to the disk per create, with thousands in flight. */
function writtenACreate({ recordBytes, changedShare }, { fileBytes, content }) {
  const record = recordBytes + (content === 0 ? 0 : FIELDS_BYTES + content);
  const creates = LOG_BYTES / record;
  const pages = (changedShare * fileBytes) / PAGE_BYTES;
  // The expected number of distinct pages that random changes hit.
  const written = pages * (1 - Math.exp((-creates * PAGES_A_CREATE) / pages));
  return record + (PAGE_BYTES * written) / creates;
}

/** Returns the nanoseconds per create: most of them are for its writes. */
const createNs = ({ nsACreate, nsAByte }, written) => nsACreate + nsAByte * written;

const RECORD_BYTES = Array.from({ length: 20 }, (_, at) => 50 * (at + 1));
const CHANGED_SHARES = Array.from({ length: 50 }, (_, at) => 0.02 * (at + 1));

/** Fits a line to points `[x, y]` by least squares: `[intercept, slope]`. */
function lineThrough(points) {
  const mean = (of) => points.reduce((sum, point) => sum + of(point), 0) / points.length;
  const [x, y] = [mean(([x]) => x), mean(([, y]) => y)];
  const slope = mean((point) => (point[0] - x) * (point[1] - y)) / mean((point) => (point[0] - x) ** 2);
  return [y - slope * x, slope];
}

/** Fits the costs of writes to rows with `{ size, content, bytes, written, create }`. */
function fitWrites(rows) {
  const errorOf = (costs) =>
    rows.reduce((sum, { size, content, bytes, written }) => {
      const expected = writtenACreate(costs, { fileBytes: bytes * size, content });
      return sum + Math.log(expected / written) ** 2;
    }, 0);
  const tried = RECORD_BYTES.flatMap((recordBytes) =>
    CHANGED_SHARES.map((changedShare) => ({ recordBytes, changedShare })),
  );
  const best = tried.reduce((best, costs) => {
    const error = errorOf(costs);
    return best === undefined || error < best.error ? { costs, error } : best;
  }, undefined).costs;
  const [nsACreate, nsAByte] = lineThrough(rows.map(({ written, create }) => [written, create]));
  return { ...best, nsACreate, nsAByte };
}

module.exports = { createNs, fitWrites, writtenACreate };
