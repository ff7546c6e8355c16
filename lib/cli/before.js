"use strict";

const { wrongUsage } = require("./failures.js");

const UNITS = { s: 1000, min: 60_000, h: 3_600_000, d: 86_400_000 };
const AGO = /^([1-9]\d{0,8})(s|min|h|d)$/;
// A time of day needs a zone: the operator may not expect the zone of this machine.
const TIME = /^\d{4}-\d\d-\d\d(T\d\d:\d\d(:\d\d(\.\d{1,3})?)?(Z|[+-]\d\d:\d\d))?$/;

const ACCEPTED =
  "how long ago, such as 90min, 12h or 7d, a date in UTC, such as 2026-11-28, or a time with its zone, such as 2026-11-28T10:00Z";

/** Returns the time of `--before`, in milliseconds. */
function readBefore(text) {
  const time = timeOf(text);
  if (Number.isNaN(time)) throw wrongUsage(`--before must be ${ACCEPTED}; got ${JSON.stringify(text)}`);
  if (time > Date.now()) {
    throw wrongUsage(
      `--before ${new Date(time).toISOString()} is in the future: leave --before out to end every session`,
    );
  }
  return time;
}

/** Returns `NaN` if the text is not a time, or out of the range of `Date`. */
function timeOf(text) {
  const [, count, unit] = AGO.exec(text) ?? [];
  if (unit !== undefined) return new Date(Date.now() - count * UNITS[unit]).getTime();
  return TIME.test(text) && isDay(text.slice(0, "2026-11-28".length)) ? Date.parse(text) : Number.NaN;
}

/** Whether the day exists: `Date.parse` reads 31 February as 3 March. */
function isDay(day) {
  const time = Date.parse(day);
  return !Number.isNaN(time) && new Date(time).toISOString().startsWith(day);
}

module.exports = { readBefore };
