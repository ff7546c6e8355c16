// What ConnectStore does over a store that goes by a faked Date, and over a FileStore under fake timers.

const assert = require("node:assert/strict");
const { ConnectStore } = require("@fluidauth/native-store/connect");
const { lasting } = require("./connect.js");
const { soon } = require("./soon.js");
const { HOUR, STORES, TIMES } = require("./stores.js");

/** @param runner as in stores.js */
function connectStoreCases({ describe, it, fake }) {
  for (const [name, createStore] of Object.entries(STORES)) {
    describe(`ConnectStore over ${name}`, () => {
      for (const [when, now] of Object.entries(TIMES)) {
        for (const [kind, cookie] of Object.entries({
          "a cookie that lasts": lasting,
          "a cookie that ends with the browser": () => ({ originalMaxAge: null, expires: null }),
        })) {
          it(`ends a session with ${kind} by a Date that is faked to the ${when}`, async () => {
            const store = new ConnectStore(createStore(), { ttl: HOUR });
            try {
              fake.use({ now });
              await soon(store.set("a", { cookie: cookie(), user: "ada" }));
              fake.setTime(now + HOUR / 2);
              const session = await soon(store.get("a"));
              assert.equal(session.user, "ada");
              if (session.cookie.expires) session.cookie.expires = new Date(Date.now() + HOUR);
              await soon(store.touch("a", session));
              fake.setTime(now + HOUR + 1);
              assert.equal((await soon(store.get("a"))).user, "ada");
              fake.setTime(now + 2 * HOUR);
              assert.equal(await soon(store.get("a")), null);
            } finally {
              fake.restore();
              await store.close();
            }
          });
        }
      }
    });
  }
}

module.exports = { connectStoreCases };
