"use strict";

// Servers and networks that fail while a store is in use: no acknowledged write is lost, no call waits for long, and
// the store recovers by itself. `bench/redis/faults.js` prints the same as a table.

const assert = require("node:assert/strict");
const { describe, it } = require("node:test");
const { redisMissing } = require("./support/redis-servers.js");
const { FAULTS } = require("./support/redis/faults.js");

// If calls are only slowed down, only a lost call, or a call that waits for a lost connection, takes this long.
const PATIENT = { commandTimeout: 10_000 };
// The margin for a busy machine. A call without a deadline would wait until the end of the fault, and a call with a new
// deadline per attempt would take several deadlines.
const SLACK = 2500;
// A store that blocked this thread to wait for a server would do so repeatedly.
const LONGEST_STALL = 2500;
// The longest backoff is 2 s, and a deadline 1 s.
const LONGEST_RECOVERY = 15_000;

describe("a RedisStore survives:", { skip: redisMissing }, () => {
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
