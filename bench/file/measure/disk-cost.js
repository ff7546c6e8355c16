"use strict";

const { after } = require("../../gaps/watch.js");
const { Ids } = require("../../sessions.js");
const { closedLoop } = require("../../closed-loop.js");
const { sessionsOf, sessionsUntil } = require("../sessions.js");
const { directoryOf, openStore } = require("../stores.js");
const { costOf } = require("./cost.js");

/** Creates before the measurement: the first write of a process may create files. */
const WARM_UP = 50;
const MOST_A_SECOND = 100_000;

/** Measures creates with one in flight, and closing the store afterwards: `{ creating, closing }`. */
async function diskCost({ seconds, ...args }) {
  const folder = directoryOf(args.store, args.directory);
  const store = openStore(args);
  const first = Ids.random(WARM_UP);
  const fresh = Ids.random(Math.ceil(MOST_A_SECOND * seconds));
  await closedLoop(1, sessionsOf(first), (session) => store.create(session));
  await store.drain?.();
  const creating = await costOf(folder, () =>
    closedLoop(1, sessionsUntil(after(1000 * seconds), fresh), (session) => store.create(session)),
  );
  const closing = await costOf(folder, async () => {
    await store.drain?.();
    await store.close();
    return 0;
  });
  const again = openStore(args);
  await again.remove(first.concat(fresh.slice(0, creating.calls)));
  await again.close();
  return { creating, closing };
}

module.exports = { diskCost };
