"use strict";

const { requireYes } = require("./confirm.js");
const { EXIT, wrongUsage } = require("./failures.js");
const show = require("./show.js");
const { hasUser, noteOtherType, readUser, userOptions } = require("./user-options.js");

async function run(task) {
  const { options } = task;
  const choices = [hasUser(options), options.id !== undefined, options.all === true];
  if (choices.filter(Boolean).length !== 1) {
    throw wrongUsage("revoke needs one of --user, --user-json, --id and --all");
  }
  if (options.except !== undefined && !hasUser(options)) throw wrongUsage("--except goes with a user");
  if (options.yes && !options.all) throw wrongUsage("--yes goes with --all");
  const userId = readUser(options);
  const store = task.openStore();
  const ended = await end(task, store, userId);
  await task.print(`${show.count(ended, "session")} ended`);
  if (ended === 0) await noteOtherType(task, store);
  return ended > 0 ? EXIT.done : EXIT.no;
}

async function end(task, store, userId) {
  const { all, except, id } = task.options;
  if (all) return endAll(task, store);
  return id === undefined ? store.deleteByUser(userId, { except }) : endOne(store, id);
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

async function endAll(task, store) {
  const live = await task.interruptible(store.size());
  if (!task.options.yes) await requireYes(task, `End ${show.count(live, "session")}, of all users?`);
  await store.clear();
  return live;
}

module.exports = {
  summary: "ends sessions: one, those of a user, or all",
  usage: ["--user <id> [--except <id>]", "--user-json <json> [--except <id>]", "--id <id>", "--all [--yes]"],
  about: [
    "Prints how many it ended. The exit code is 0 where that is one or more, and 1 where there was none to end.",
    "--all counts the sessions, and asks. Where there is no terminal, it does nothing without --yes.",
    "Every process that has the store open knows at once. Other users of this machine can see the command line while " +
      "this runs: the id of --id is of no use to them afterwards, that of --except is.",
  ],
  options: {
    ...userOptions,
    except: { value: "<id>", help: "the id of one session of the user that goes on" },
    id: { value: "<id>", help: "the session of this id" },
    all: { help: "every session of the store: all users have to log in again" },
    yes: { help: "with --all: does not ask" },
  },
  run,
};
