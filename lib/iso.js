"use strict";

const DAY = 24 * 60 * 60 * 1000;

const padded = (count, digits) =>
  Array.from({ length: count }, (_, number) => String(number).padStart(digits, "0"));
const TWO_DIGITS = padded(60, 2);
const THREE_DIGITS = padded(1000, 3);

// The last text, because a request needs it twice, its day, and the date part of it.
let lastMillis;
let lastText;
let lastDay;
let date;

/**
 * Returns `new Date(millis).toISOString()` in a fifth of its time. Each request needs the expiry of its session as
 * text, and most sessions end on the same few days.
 */
function isoOf(millis) {
  if (millis === lastMillis) return lastText;
  const day = Math.floor(millis / DAY);
  if (day !== lastDay) {
    date = new Date(day * DAY).toISOString().slice(0, -"00:00:00.000Z".length);
    lastDay = day;
  }
  const seconds = Math.floor((millis - day * DAY) / 1000);
  const minutes = Math.floor(seconds / 60);
  const hours = Math.floor(minutes / 60);
  const time = `${TWO_DIGITS[hours]}:${TWO_DIGITS[minutes - hours * 60]}:${TWO_DIGITS[seconds - minutes * 60]}`;
  lastText = `${date}${time}.${THREE_DIGITS[millis - day * DAY - seconds * 1000]}Z`;
  lastMillis = millis;
  return lastText;
}

module.exports = { isoOf };
