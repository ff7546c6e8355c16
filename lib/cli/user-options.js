"use strict";

const { wrongUsage } = require("./failures.js");
const show = require("./show.js");

/** The options that name a user. */
const userOptions = {
  user: { value: "<id>", help: "the user with this id, a string" },
  "user-json": { value: "<json>", help: "the user with this id, another JSON value, such as 42" },
};

const hasUser = (options) => options.user !== undefined || options["user-json"] !== undefined;

/** Returns the user id of the options. */
function readUser({ user, "user-json": json }) {
  if (json === undefined) return user;
  if (user !== undefined) throw wrongUsage("--user and --user-json exclude each other");
  const userId = parse(json);
  if (userId === null)
    throw wrongUsage("--user-json must not be null: sessions without a user cannot be looked up");
  return userId;
}

function parse(json) {
  try {
    return JSON.parse(json);
  } catch {
    throw wrongUsage("--user-json must be JSON, such as 42; a text is given by --user");
  }
}

/**
 * Prints a note if a user has no session, but a user with an id of another type has. `--user 1` is a string, and the
 * app's id may be a number.
 */
async function noteOtherType(task, store) {
  const { user, "user-json": json } = task.options;
  const isText = user !== undefined;
  const other = isText ? numberOrOther(user) : json;
  if (other === undefined) return;
  const found = await store.getByUser(other);
  // The user may have sessions that the command keeps.
  if (found.length === 0 || (await store.getByUser(readUser(task.options))).length > 0) return;
  const [type, option] = isText ? [typeof other, "--user-json"] : ["text", "--user"];
  const sessions = show.count(found.length, "session");
  task.note(
    `no session of the ${isText ? "text" : typeof parse(json)} ${show.escapeUnsafe(user ?? json)}, but ${sessions} of the ${type}: use ${option}`,
  );
}

/** Parses a text to a JSON value, if that is not a string. */
function numberOrOther(text) {
  try {
    const value = JSON.parse(text);
    return value === null || typeof value === "string" ? undefined : value;
  } catch {
    return undefined;
  }
}

module.exports = { userOptions, hasUser, noteOtherType, readUser };
