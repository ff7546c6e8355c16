"use strict";

const MINUTE = 60 * 1000;
const DAY_IN_SECONDS = 24 * 60 * 60;
const YEAR_IN_SECONDS = 366 * DAY_IN_SECONDS;

const warned = new Set();

/** Whether a number is odd as milliseconds, but a whole number of days as seconds. */
const areDays = (millis) =>
  millis % DAY_IN_SECONDS === 0 && millis <= YEAR_IN_SECONDS && millis % MINUTE !== 0;

/**
 * Warns if a number of milliseconds was probably meant as seconds. Warns once per option.
 * @param {string} option Such as "ttl of ConnectStore".
 * @param {{ isLifetime?: boolean }} [what] `isLifetime`: less than a minute is suspicious, too.
 */
function warnOfSeconds(option, millis, { isLifetime = false } = {}) {
  if (millis === undefined || warned.has(option)) return;
  if (!areDays(millis) && !(isLifetime && millis < MINUTE)) return;
  warned.add(option);
  process.emitWarning(
    `${option} is in milliseconds: ${millis} is ${millis / 1000} seconds. For ${millis} seconds write ${millis} * 1000`,
    { code: "NATIVE_STORE_SECONDS" },
  );
}

module.exports = { warnOfSeconds };
