"use strict";

const MINUTE = 60 * 1000;
const DAY_IN_SECONDS = 24 * 60 * 60;
const YEAR_IN_SECONDS = 366 * DAY_IN_SECONDS;

const warned = new Set();

/** Whether milliseconds make no round time, while as many seconds would be whole days. */
const areDays = (millis) =>
  millis % DAY_IN_SECONDS === 0 && millis <= YEAR_IN_SECONDS && millis % MINUTE !== 0;

/**
 * Warns, once for each option, of a number of milliseconds that was probably meant as seconds.
 * @param {string} option Such as "ttl of ConnectStore".
 * @param {{ isLifetime?: boolean }} [what] `isLifetime`: whether less than a minute is unlikely too.
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
