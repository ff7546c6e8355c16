"use strict";

const { farOff, userOf } = require("../sessions.js");

/** Session `number`, of a user of its own, as FluidAuth makes it. */
const sessionOf = (sessionId, number, millis = farOff(number)) => ({
  sessionId,
  userId: userOf(number),
  expires: new Date(millis).toISOString(),
});

/** The sessions of some of the ids, each made when it is asked for. */
function* sessionsOf(ids, { to = ids.length, firstNumber = 0, expiresOf = farOff } = {}) {
  for (let index = 0; index < to; index++) {
    const number = firstNumber + index;
    yield sessionOf(ids.at(index), number, expiresOf(number));
  }
}

/** The items for as long as it is not over. */
function* until(isOver, items) {
  for (const item of items) {
    if (isOver(performance.now())) return;
    yield item;
  }
}

/** Sessions of the ids for as long as it is not over. */
const sessionsUntil = (isOver, ids) => until(isOver, sessionsOf(ids));

module.exports = { sessionsOf, sessionsUntil, until };
