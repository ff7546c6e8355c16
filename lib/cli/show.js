"use strict";

// Formats values for people and programs. Ids and users may contain anything, so characters that could end a line, move
// the cursor or reverse the text are escaped. In JSON the escapes mean the same.

const UNSAFE = /[\p{Cc}\p{Cs}\p{Zl}\p{Zp}\p{Bidi_Control}]/u;
const EVERY_UNSAFE = new RegExp(UNSAFE, "gu");
const LONGEST_USER = 60;

const [SECOND, MINUTE, HOUR, DAY] = [1000, 60_000, 3_600_000, 86_400_000];

const escapeUnsafe = (text) =>
  text.replace(EVERY_UNSAFE, (unsafe) => `\\u${unsafe.codePointAt(0).toString(16).padStart(4, "0")}`);

const json = (value) => escapeUnsafe(JSON.stringify(value));

const isPlain = (text) => text !== "" && text === text.trim() && text[0] !== '"' && !UNSAFE.test(text);

/** Formats an id: as it is, or as JSON if that could be misread. */
const id = (sessionId) => (isPlain(sessionId) ? sessionId : json(sessionId));

/** Formats an id for a message, and cuts a long one. */
const shortId = (sessionId) => shorten(id(sessionId));

/** Formats a user in the form of `--user`, otherwise in the form of `--user-json`. No user is `-`. */
function user(userId) {
  if (userId === null || userId === undefined) return "-";
  const isText = typeof userId === "string" && isPlain(userId) && userId !== "-" && !isJson(userId);
  return shorten(isText ? userId : json(userId));
}

function isJson(text) {
  // Most strings are not JSON, and throwing for each would dominate the run time.
  if (!/^[-\d[{]|^(true|false|null)$/.test(text)) return false;
  try {
    JSON.parse(text);
    return true;
  } catch {
    return false;
  }
}

function shorten(text) {
  const start = [...text.slice(0, 2 * LONGEST_USER + 1)].slice(0, LONGEST_USER).join("");
  return start.length < text.length ? `${start}…` : text;
}

/** Formats a duration in its two largest units. */
function duration(millis) {
  const floor = (unit, within = Number.POSITIVE_INFINITY) => Math.floor((millis % within) / unit);
  if (millis < MINUTE) return `${Math.max(0, floor(SECOND))} s`;
  if (millis < HOUR) return `${floor(MINUTE)} min`;
  if (millis < DAY) return `${floor(HOUR)} h ${floor(MINUTE, HOUR)} min`;
  return `${floor(DAY)} d ${floor(HOUR, DAY)} h`;
}

const number = (value) => value.toLocaleString("en");

/** "1 session", "2 sessions". */
const count = (value, noun) => `${number(value)} ${noun}${value === 1 ? "" : "s"}`;

function bytes(value) {
  if (value < 1024) return `${value} B`;
  const power = Math.min(4, Math.floor(Math.log2(value) / 10));
  return `${(value / 1024 ** power).toFixed(1)} ${["KiB", "MiB", "GiB", "TiB"][power - 1]}`;
}

module.exports = { escapeUnsafe, json, id, shortId, user, duration, number, count, bytes };
