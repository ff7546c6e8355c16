"use strict";

const { EXIT, wrongUsage } = require("./failures.js");
const show = require("./show.js");
const { hasUser, readUser, userOptions } = require("./user-options.js");

async function run(task) {
  const { options } = task;
  if (hasUser(options) === (options.id !== undefined)) {
    throw wrongUsage("revoke needs one of --user, --user-json and --id");
  }
  if (options.except !== undefined && !hasUser(options)) throw wrongUsage("--except goes with a user");
  const userId = readUser(options);
  const store = task.openStore();
  const ended = hasUser(options)
    ? await store.deleteByUser(userId, { except: options.except })
    : await endOne(store, options.id);
  await task.print(`${show.count(ended, "session")} ended`);
  return ended > 0 ? EXIT.done : EXIT.no;
}

async function endOne(store, id) {
  const isLive = await isThere(store, id);
  await store.delete(id);
  return isLive ? 1 : 0;
}

async function isThere(store, id) {
  try {
    return (await store.get(id)) !== null;
  } catch (error) {
    // What cannot be read can be ended all the same.
    if (error.code === "ERR_STORE_CORRUPT") return true;
    throw error;
  }
}

module.exports = {
  summary: "ends sessions: one, or those of a user",
  usage: ["--user <id> [--except <id>]", "--user-json <json> [--except <id>]", "--id <id>"],
  about: [
    "Prints how many it ended. The exit code is 0 where that is one or more, and 1 where there was none to end.",
    "Every process that has the store open knows at once. Other users of this machine can see the command line while " +
      "this runs: the id of --id is of no use to them afterwards, that of --except is.",
  ],
  options: {
    ...userOptions,
    except: { value: "<id>", help: "the id of one session of the user that goes on" },
    id: { value: "<id>", help: "the session of this id" },
  },
  run,
};
