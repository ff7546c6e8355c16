"use strict";

const { readBefore } = require("./before.js");
const { requireYes } = require("./confirm.js");
const { EXIT, wrongUsage } = require("./failures.js");
const { OldSessions } = require("./old-sessions.js");
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
  if (options.before !== undefined && options.id !== undefined) {
    throw wrongUsage("--before goes with a user or --all");
  }
  const before = options.before === undefined ? undefined : readBefore(options.before);
  const userId = readUser(options);
  const store = task.openStore();
  const user = hasUser(options) ? { userId } : undefined;
  const old =
    before === undefined ? undefined : new OldSessions(store, task, { before, except: options.except, user });
  const ended = await (old ? endOld(task, old, before) : end(task, store, userId));
  await task.print(`${show.count(ended, "session")} ended`);
  if (ended === 0) await noteOtherType(task, store);
  old?.throwIfAnyUnreadable();
  return ended > 0 ? EXIT.done : EXIT.no;
}

async function endOld(task, old, before) {
  const { all, yes } = task.options;
  if (all && !yes) {
    const sessions = show.count(await old.count(), "session");
    await requireYes(task, `End ${sessions} created before ${new Date(before).toISOString()}, of all users?`);
  }
  return old.end();
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
    // An unreadable session can still be ended.
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
  summary: "end sessions: one, those of a user, or all",
  usage: [
    "--user <id> [--except <id>] [--before <time>]",
    "--user-json <json> [--except <id>] [--before <time>]",
    "--id <id>",
    "--all [--before <time>] [--yes]",
  ],
  about: [
    "Prints how many it ended. The exit code is 0 if it ended at least one, and 1 otherwise.",
    "--all counts the sessions, and asks first. Without a terminal it needs --yes.",
    "--before ends only the sessions that were created before a time: how long ago, such as 90min, 12h or 7d, a date in UTC, " +
      "such as 2026-11-28, or a time with its zone, such as 2026-11-28T10:00Z. A session in a file that was stored by a version " +
      "without creation times counts as older than any time, until it is next written.",
    "With --before, sessions that cannot be read stay. The command counts them, and the exit code is 1. With a user, a " +
      "FileStore counts those of all users. A RedisStore skips records whose user it cannot read.",
    "It takes effect immediately in every process that has the store open. Other users of this machine can see the " +
      "command line while it runs: an id after --id is useless to them afterwards, an id after --except is not.",
  ],
  options: {
    ...userOptions,
    except: { value: "<id>", help: "the id of one session of the user to keep" },
    id: { value: "<id>", help: "the session with this id" },
    all: { help: "every session of the store: all users have to log in again" },
    before: { value: "<time>", help: "with a user or --all: only sessions created before this time" },
    yes: { help: "with --all: does not ask" },
  },
  run,
};
