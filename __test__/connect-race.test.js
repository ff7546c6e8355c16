"use strict";

// A request that has loaded its session, and ends only after the session was destroyed, must not bring it back.
// `RACE_ROUNDS` asks for more rounds.

const assert = require("node:assert/strict");
const { describe, it } = require("node:test");
const session = require("express-session");
const { FileStore, MemoryStore, RedisStore } = require("..");
const { ConnectStore } = require("../connect.js");
const { Browser, SERVERS, startElsewhere } = require("./support/connect-app.js");
const { makePlace } = require("./support/file-places.js");
const { makeRedisPlace } = require("./support/redis-places.js");
const { redisMissing } = require("./support/redis-servers.js");

const AT_ONCE = 10;
const ROUNDS = AT_ONCE * Math.ceil(Number(process.env.RACE_ROUNDS ?? 60) / AT_ONCE);
const place = makePlace();
const redis = makeRedisPlace();

/** Whether the session of one user came back. */
async function comesBack({ slow, fast, name, changes, fixedIds }) {
  const browser = new Browser();
  const login = fixedIds ? `login?device=device-${name}` : "login";
  await browser.ask("POST", `${fast}/${login}`);
  assert.equal(await browser.ask("GET", `${slow}/me`), "ada");
  const late = browser.twin().ask("GET", `${slow}/slow?name=${name}${changes ? "&changes=1" : ""}`);
  await browser.ask("GET", `${slow}/door?name=${name}`);
  await browser.twin().ask("POST", `${fast}/logout`);
  await browser.ask("POST", `${slow}/door?name=${name}`);
  await late;
  const users = await Promise.all([slow, fast].map((url) => browser.twin().ask("GET", `${url}/me`)));
  if (fixedIds) {
    // The next login has the same id, but is a new session.
    await browser.ask("POST", `${fast}/${login}`);
    assert.equal(await browser.ask("GET", `${slow}/me`), "ada");
    await browser.ask("POST", `${fast}/logout`);
  }
  return users.includes("ada");
}

/** Counts the rounds in which the session came back. */
async function race(servers, { changes, fixedIds }) {
  let back = 0;
  for (let round = 0; round < ROUNDS; round += AT_ONCE) {
    const some = Array.from({ length: AT_ONCE }, (_, at) =>
      comesBack({ ...servers, changes, fixedIds, name: round + at }),
    );
    for (const isBack of await Promise.all(some)) back += isBack;
  }
  return back;
}

const ends = (changes) => (changes ? "a changed session" : "an unchanged one");

async function raceAlone(framework, store, options, changes, fixedIds) {
  const { url, stop } = await SERVERS[framework](store, options);
  try {
    return await race({ slow: url, fast: url }, { changes, fixedIds });
  } finally {
    await stop();
  }
}

/** The slow request and the logout are in different processes. */
async function raceElsewhere(framework, Store, options, changes, fixedIds) {
  const store = new ConnectStore(new Store(options));
  const [here, there] = [await SERVERS[framework](store), await startElsewhere(framework, Store, options)];
  try {
    assert.equal(await race({ slow: there.url, fast: here.url }, { changes, fixedIds }), 0);
    assert.equal(await store.length(), 0);
  } finally {
    await Promise.all([here.stop(), there.stop()]);
    await store.close();
  }
}

for (const framework of ["express", "fastify"]) {
  describe(`a slow request of ${framework}`, () => {
    for (const changes of [true, false]) {
      it(`with ${ends(changes)} brings no session back to a MemoryStore`, async () => {
        const store = new ConnectStore(new MemoryStore());
        assert.equal(await raceAlone(framework, store, {}, changes), 0);
        assert.equal(await store.length(), 0);
      });

      it(`with ${ends(changes)} brings no session back to a FileStore`, async () => {
        const store = new ConnectStore(new FileStore({ path: place.next() }));
        assert.equal(await raceAlone(framework, store, {}, changes), 0);
        assert.equal(await store.length(), 0);
        await store.close();
      });

      it(`with ${ends(changes)} does not bring back a session that another process ended in a FileStore`, async () => {
        await raceElsewhere(framework, FileStore, { path: place.next() }, changes);
      });

      it(`with ${ends(changes)} does not bring back a session that another process ended in a RedisStore`, {
        skip: redisMissing,
      }, async () => {
        await raceElsewhere(framework, RedisStore, redis.next(), changes);
      });

      it(`with ${ends(changes)} does not bring back a session whose id is reused`, async () => {
        const store = new ConnectStore(new MemoryStore());
        assert.equal(await raceAlone(framework, store, {}, changes, true), 0);
        assert.equal(await store.length(), 0);
      });

      it(`with ${ends(changes)} does not bring back a session whose id is reused in another process`, async () => {
        await raceElsewhere(framework, FileStore, { path: place.next() }, changes, true);
      });
    }
  });
}

for (const touchAfter of [0, 60_000]) {
  it(`a slow request of express that saves its loaded session brings no session back, touchAfter ${touchAfter}`, async () => {
    const store = new ConnectStore(new FileStore({ path: place.next() }), { touchAfter });
    assert.equal(await raceAlone("express", store, { resave: true }, false), 0);
    await store.close();
  });
}

// This proves that the tests above can fail.
it("a slow request brings every session back to express-session's own store", async () => {
  assert.equal(await raceAlone("express", new session.MemoryStore(), {}, true), ROUNDS);
});
