"use strict";

/** The value below which a share of the values lies, between two of them where it falls there. */
function quantile(values, share) {
  const sorted = [...values].sort((one, other) => one - other);
  const at = (sorted.length - 1) * share;
  const below = sorted[Math.floor(at)];
  return below + (sorted[Math.ceil(at)] - below) * (at % 1);
}

const median = (values) => quantile(values, 0.5);

/** The median and the quartiles. */
function summary(values) {
  return { median: median(values), low: quantile(values, 0.25), high: quantile(values, 0.75) };
}

/** Round by round, and then the median of these: what slows a whole round down is in both. */
function medianRatio(values, others) {
  return median(values.map((value, round) => value / others[round]));
}

/** A number of sessions, as people say it. */
function count(number) {
  if (number < 1000) return String(number);
  return number < 1_000_000 ? `${number / 1000}k` : `${number / 1_000_000}M`;
}

/** `plural(2, "round")` is "2 rounds". */
const plural = (number, name) => `${number} ${name}${number === 1 ? "" : "s"}`;

/** The items in turn, in each round from another of them on. The round before the first is -1. */
const rotated = (items, round) => items.map((_, at) => items[(at + round + items.length) % items.length]);

module.exports = { count, plural, median, quantile, summary, medianRatio, rotated };
