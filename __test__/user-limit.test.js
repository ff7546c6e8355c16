"use strict";

// Processes that concurrently log in a user with a limit on sessions.

const assert = require("node:assert/strict");
const { after, before, describe, it } = require("node:test");
const { soon, startProcess, startThread } = require("./support/file-peers.js");
const { makePlace, skip } = require("./support/file-places.js");
const { session } = require("./support/file-session.js");
const { makeRedisPlace } = require("./support/redis-places.js");
const { redisMissing } = require("./support/redis-servers.js");

const MAX = 3;
const AT_ONCE = 4;
const ROUNDS = Number(process.env.RACE_ROUNDS ?? 25);
const limits = { maxSessionsPerUser: MAX, whenUserIsFull: "reject" };

const folders = makePlace();
const single = makeRedisPlace();
const cluster = makeRedisPlace("cluster");

for (const [name, options, skipped, isExact] of [
  ["FileStore", () => ({ path: folders.next(), sweepInterval: 0 }), skip, true],
  ["RedisStore", () => single.next(), redisMissing, true],
  ["RedisStore in a cluster", () => cluster.next(), redisMissing, false],
]) {
  describe(`processes with a ${name} that rejects beyond maxSessionsPerUser`, { skip: skipped }, () => {
    let peers;
    let stores;
    before(async () => {
      peers = await Promise.all([startProcess(), startProcess(), startProcess(), startThread()]);
      const same = { ...options(), ...limits };
      stores = await Promise.all(peers.map((peer) => peer.open(same)));
      // All processes are connected.
      await Promise.all(stores.map((store) => store.get("nobody")));
    });
    after(async () => {
      await Promise.all(stores.map((store) => store.close()));
      await Promise.all(peers.map((peer) => peer.stop()));
    });

    it("never exceed the limit of a user", async () => {
      let stored = 0;
      for (let round = 0; round < ROUNDS; round++) {
        const userId = `user ${round}`;
        const moment = soon();
        const codes = await Promise.all(
          stores.map((store, at) => {
            const own = Array.from({ length: AT_ONCE }, (_, one) =>
              session(`${round} ${at} ${one}`, { userId }),
            );
            return store.callAll("create", own, moment);
          }),
        );
        const refused = codes.flat().filter((code) => code !== null);
        const held = (await stores[0].getByUser(userId)).length;
        assert.deepEqual(new Set(refused), new Set(["ERR_TOO_MANY_SESSIONS"]));
        assert.equal(held, codes.flat().length - refused.length, "all that were not refused are there");
        assert.ok(isExact ? held === MAX : held <= MAX, `${held} sessions`);
        stored += held;
      }
      assert.ok(stored > 0);
    });

    it("accept a login again after a session has ended elsewhere", async () => {
      const [one, other] = stores;
      const all = Array.from({ length: MAX + 2 }, (_, at) => session(`again ${at}`, { userId: "ann" }));
      for (const each of all.slice(0, MAX)) await one.create(each);
      await assert.rejects(other.create(all[MAX]), { code: "ERR_TOO_MANY_SESSIONS" });
      await one.delete(all[0].sessionId);
      await other.create(all[MAX]);
      await assert.rejects(one.create(all[MAX + 1]), { code: "ERR_TOO_MANY_SESSIONS" });
    });
  });
}
