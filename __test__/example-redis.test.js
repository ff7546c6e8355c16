"use strict";

// The examples on a RedisStore, as two machines would run them.

const assert = require("node:assert/strict");
const { after, before, describe, it } = require("node:test");
const { RedisStore } = require("..");
const { makePlace } = require("./support/file-places.js");
const { ADA, Client, IPHONE, kill, killAll, start } = require("./support/example-server.js");
const { redisMissing, startServer } = require("./support/redis-servers.js");

const { next: newFolder } = makePlace();

const SECRET = "a secret that both machines have, of 32 characters";
const COOKIES = {
  login: "login-example-session",
  passport: "passport-example-session",
  fastify: "fastify-example-session",
};

describe("the examples on Redis", { skip: redisMissing }, () => {
  let server;
  before(async () => {
    server = await startServer({ isDurable: true });
  });
  after(async () => {
    await killAll();
    await server?.kill();
  });

  for (const [name, cookieName] of Object.entries(COOKIES)) {
    it(`keep the visitors of ${name} logged in on every machine, and log them out on every one`, async () => {
      const env = { STORE: "redis", REDIS_URL: server.url, SESSION_SECRET: SECRET };
      const machines = [await start(name, newFolder(), env), await start(name, newFolder(), env)];
      const [one, other] = machines.map(({ url }) => url);
      const laptop = await new Client(one, cookieName).login(ADA);
      const phone = await new Client(other, cookieName, IPHONE).login(ADA);
      const moved = (client, url) =>
        Object.assign(new Client(url, cookieName, client.userAgent), { cookie: client.cookie });
      assert.equal(await moved(laptop, other).isLoggedIn(), true);
      assert.equal((await moved(phone, one).sessions()).length, 2);

      await kill(machines[0].child);
      await server.kill();
      await server.start();
      const again = await start(name, newFolder(), env);
      assert.equal(await moved(laptop, again.url).isLoggedIn(), true);

      const store = new RedisStore({ url: server.url, prefix: `${name}:` });
      assert.equal(await store.size(), 2);
      for await (const id of store.ids()) await store.delete(id);
      await store.close();
      assert.equal(await moved(laptop, again.url).isLoggedIn(), false);
      assert.equal(await moved(phone, other).isLoggedIn(), false);
    });
  }
});
