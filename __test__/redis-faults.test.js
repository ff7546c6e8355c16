"use strict";

// Servers and networks that fail while a store is called: nothing that was acknowledged is lost, nobody waits for long,
// and all goes on by itself. `bench/redis/faults.js` prints the same as a table.

const assert = require("node:assert/strict");
const { describe, it } = require("node:test");
const { redisMissing } = require("./support/redis-servers.js");
const { FAULTS } = require("./support/redis/faults.js");

// Where calls are only slowed, nothing but a call that is lost or waits for a connection that is gone takes so long.
const PATIENT = { commandTimeout: 10_000 };
// For calls that are late as the machine is busy. A call without a deadline would wait until the fault is over, and one
// that gets a new deadline with each attempt would wait for several.
const SLACK = 2500;
// A store that waited for a server on this thread would do so again and again.
const LONGEST_STALL = 2500;
// The longest backoff is 2 s, and a deadline 1 s.
const LONGEST_RECOVERY = 15_000;

describe("a RedisStore goes on through:", { skip: redisMissing }, () => {
  for (const { title, fails, run } of FAULTS) {
    it(title, { timeout: 180_000 }, async () => {
      const options = fails ? {} : PATIENT;
      const { requests, failed, lost, longest, recovered, stall, faults, deadline } = await run(options);
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
