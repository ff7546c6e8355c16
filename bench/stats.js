"use strict";

/** Returns the quantile of the values, with linear interpolation. */
function quantile(values, share) {
  const sorted = [...values].sort((one, other) => one - other);
  const at = (sorted.length - 1) * share;
  const below = sorted[Math.floor(at)];
  return below + (sorted[Math.ceil(at)] - below) * (at % 1);
}

const median = (values) => quantile(values, 0.5);

/** Returns the median and the quartiles. */
function summary(values) {
  return { median: median(values), low: quantile(values, 0.25), high: quantile(values, 0.75) };
}

/** Returns the median of the ratios of each round: slow rounds affect both values. */
function medianRatio(values, others) {
  return median(values.map((value, round) => value / others[round]));
}

/** Formats a number of sessions. */
function count(number) {
  if (number < 1000) return String(number);
  return number < 1_000_000 ? `${number / 1000}k` : `${number / 1_000_000}M`;
}

/** `plural(2, "round")` is "2 rounds". */
const plural = (number, name) => `${number} ${name}${number === 1 ? "" : "s"}`;

/** Rotates the items by the round. Rounds may start at -1. */
const rotated = (items, round) => items.map((_, at) => items[(at + round + items.length) % items.length]);

module.exports = { count, plural, median, quantile, summary, medianRatio, rotated };
