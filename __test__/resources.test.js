"use strict";

// The system resources that stores take and release.

const assert = require("node:assert/strict");
const { describe, it } = require("node:test");
const { makePlace, skip } = require("./support/file-places.js");
const { run } = require("./support/file-scripts.js");
const { makeRedisPlace } = require("./support/redis-places.js");
const { redisMissing } = require("./support/redis-servers.js");

const place = makePlace();
const redis = makeRedisPlace();

const COUNT = `
  const { MemoryStore, RedisStore } = require(${JSON.stringify(`${__dirname}/..`)});
  const fs = require("node:fs");
  const { setTimeout: sleep } = require("node:timers/promises");
  const count = () => ({
    threads: fs.readdirSync("/proc/self/task").length,
    files: fs.readdirSync("/proc/self/fd").length,
  });
  const [kind, given] = process.argv.slice(1);
  const open = {
    memory: () => new MemoryStore(),
    file: (at) => new FileStore({ path: given + "/" + at }),
    redis: () => new RedisStore(JSON.parse(given)),
  }[kind];`;

const FORGET = `${COUNT}
  (async () => {
    const use = async (at) => {
      const store = open(at);
      await store.create(session("a" + at));
      await store.get("a" + at);
    };
    // Resources that all stores share exist from the first store on.
    await use(0);
    const before = count();
    for (let at = 1; at <= 50; at++) await use(at);
    for (let tries = 0; tries < 400; tries++) {
      globalThis.gc();
      await sleep(100);
      const { threads, files } = count();
      if (threads <= before.threads && files <= before.files) break;
    }
    const after = count();
    say(JSON.stringify({ threads: after.threads - before.threads, files: after.files - before.files }));
    process.exit();
  })();`;

const CALL = `${COUNT}
  (async () => {
    const store = open(0);
    for (let at = 0; at < 200; at++) await store.create(session("s" + at, { userId: "u" + at }));
    await store.size();
    const before = count().threads;
    let most = 0;
    const watch = setInterval(() => { most = Math.max(most, count().threads); }, 1);
    for (const call of [
      (at) => store.deleteByUser("u" + at),
      (at) => store.getByUser("u" + at),
      () => store.size(),
      () => store.clean(),
      () => store.stats(),
      async () => { for await (const id of store.ids()) return id; },
    ]) {
      const calls = [];
      for (let at = 0; at < 200; at++) {
        calls.push(call(at));
        if (at % 30 === 0) most = Math.max(most, count().threads);
      }
      most = Math.max(most, count().threads);
      await Promise.all(calls);
    }
    clearInterval(watch);
    say(String(most - before));
    await store.close();
  })();`;

const KINDS = [
  ["MemoryStore", "memory", () => ""],
  ["FileStore", "file", () => place.next()],
  ["RedisStore", "redis", () => JSON.stringify(redis.next()), redisMissing],
];

for (const [name, kind, given, missing] of KINDS) {
  describe(`a ${name}`, { skip: skip || missing }, () => {
    it("without references is collected, with its threads and files", async () => {
      const printed = await run(FORGET, { args: [kind, given()], flags: ["--expose-gc"] });
      const { threads, files } = JSON.parse(printed);
      assert.ok(threads <= 0 && files <= 0, printed);
    });

    it("uses at most four threads for hundreds of concurrent calls that read many sessions", async () => {
      const more = Number(await run(CALL, { args: [kind, given()] }));
      assert.ok(more <= 4, `${more} more threads`);
    });
  });
}
