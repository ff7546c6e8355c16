"use strict";

const { kindOf } = require("./errors.js");
const native = require("./native.js");
const { text } = require("./options.js");

const EXPECTED = "an object with a password, and a username where there is one";
const MAX_REASON = 200;

/**
 * Returns the function that the addon calls for the credentials of each connection. The store keeps the app's function,
 * because that may reference the store: kept by the addon, it would prevent the store's collection.
 */
function answerRequests(credentials) {
  const weak = new WeakRef(credentials);
  return (request) => void answer(request, weak.deref());
}

async function answer(request, credentials) {
  try {
    const { username, password } = check(await credentials?.());
    native.answerCredentials(request, username, password);
  } catch (error) {
    native.refuseCredentials(request, reasonOf(error));
  }
}

function check(given) {
  if (given === null || typeof given !== "object")
    throw new Error(`expected ${EXPECTED}; got ${kindOf(given)}`);
  const { username, password } = given;
  for (const [name, value] of Object.entries({ username, password })) {
    const isValid = text.accepts(value) || (name === "username" && value === undefined);
    if (!isValid) throw new Error(`${name} must be ${text.expected}; got ${kindOf(value)}`);
  }
  return { username, password };
}

function reasonOf(error) {
  try {
    const reason = typeof error?.message === "string" ? error.message : kindOf(error);
    return reason.toWellFormed().slice(0, MAX_REASON);
  } catch {
    return "an error that throws when it is read";
  }
}

module.exports = { answerRequests };
