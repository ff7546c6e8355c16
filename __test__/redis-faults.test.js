"use strict";

// Servers and networks that fail while a store is called: nothing that was acknowledged is lost, nobody waits for long,
// and all goes on by itself. `bench/redis/faults.js` prints the same as a table.

const assert = require("node:assert/strict");
const { describe, it } = require("node:test");
const { redisMissing } = require("./support/redis-servers.js");
const { FAULTS } = require("./support/redis/faults.js");

// For calls that are late as the machine is busy. A call that waited for two deadlines would exceed it.
const SLACK = 500;
// A store that waited for a server on this thread would do so for its deadline, which is longer.
const LONGEST_STALL = 800;
const LONGEST_RECOVERY = 5000;

describe("a RedisStore goes on through:", { skip: redisMissing }, () => {
  for (const { title, fails, run } of FAULTS) {
    it(title, { timeout: 60_000 }, async () => {
      const { requests, failed, lost, longest, recovered, stall, faults, deadline } = await run();
      assert.deepEqual(faults, []);
      assert.equal(lost, 0);
      assert.ok(requests > 0, "nothing was asked of it meanwhile");
      assert.equal(failed > 0, fails, `${failed} calls failed`);
      const limit = deadline + SLACK + stall;
      assert.ok(longest <= limit, `a call took ${longest} ms, of ${limit} at most`);
      assert.ok(stall < LONGEST_STALL, `the event loop stood still for ${stall} ms`);
      assert.ok(recovered < LONGEST_RECOVERY, `it took ${recovered} ms until all was well`);
    });
  }
});
