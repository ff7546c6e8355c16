"use strict";

const { farOff, userOf } = require("../sessions.js");

/** Returns session `number` in FluidAuth's shape, each of another user. */
const sessionOf = (sessionId, number, millis = farOff(number)) => ({
  sessionId,
  userId: userOf(number),
  expires: new Date(millis).toISOString(),
});

/** Generates the sessions of some ids lazily. */
function* sessionsOf(ids, { to = ids.length, firstNumber = 0, expiresOf = farOff } = {}) {
  for (let index = 0; index < to; index++) {
    const number = firstNumber + index;
    yield sessionOf(ids.at(index), number, expiresOf(number));
  }
}

/** Yields items until it is over. */
function* until(isOver, items) {
  for (const item of items) {
    if (isOver(performance.now())) return;
    yield item;
  }
}

/** Yields sessions of the ids until it is over. */
const sessionsUntil = (isOver, ids) => until(isOver, sessionsOf(ids));

module.exports = { sessionsOf, sessionsUntil, until };
