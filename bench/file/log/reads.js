"use strict";

/**
 * Times gets of both versions with an empty log, and with the newest sessions in the log: `{ count, empty: { store,
 * rounds }[], filled?: { store, rounds, inLog }[] }`, in nanoseconds. `inLog`: the number of sessions in the log, by
 * round. Both versions hold the same number of sessions.
 */
function timeGets(run, hasLog) {
  const { getRounds, logSize: count } = run.plan;
  const rowsOf = () => run.versions.map((store) => ({ store, rounds: [] }));
  return run.withOpened(run.versions, async (childOf) => {
    const empty = rowsOf();
    for (const { store } of empty) await childOf(store).call("emptyLog");
    await run.inRounds("get, log empty", getRounds, [empty], ({ store }) => childOf(store).call("get"));
    if (!hasLog) return { count, empty };
    const filled = rowsOf().map((row) => ({ ...row, inLog: [] }));
    await run.inRounds("get, sessions in the log", getRounds, [filled], async ({ store, inLog }) => {
      inLog.push(await childOf(store).call("fillLog", { count }));
      return childOf(store).call("get");
    });
    for (const { store } of filled) await childOf(store).call("undo");
    return { count, empty, filled };
  });
}

module.exports = { timeGets };
