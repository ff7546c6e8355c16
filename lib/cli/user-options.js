"use strict";

const { wrongUsage } = require("./failures.js");

/** The options that name a user. */
const userOptions = {
  user: { value: "<id>", help: "the user of this id, which is a text" },
  "user-json": { value: "<json>", help: "the user of this id, which is another JSON value, such as 42" },
};

const hasUser = (options) => options.user !== undefined || options["user-json"] !== undefined;

/** The user id that the options name. */
function readUser({ user, "user-json": json }) {
  if (json === undefined) return user;
  if (user !== undefined) throw wrongUsage("--user and --user-json exclude each other");
  const userId = parse(json);
  if (userId === null)
    throw wrongUsage("--user-json must not be null: sessions of nobody cannot be looked up");
  return userId;
}

function parse(json) {
  try {
    return JSON.parse(json);
  } catch {
    throw wrongUsage("--user-json must be JSON, such as 42; a text is given by --user");
  }
}

module.exports = { userOptions, hasUser, readUser };
