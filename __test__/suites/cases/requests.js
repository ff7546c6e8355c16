// Requests by supertest to an app on express-session. `nextTick` and `setImmediate` stay real: Express needs them.

const assert = require("node:assert/strict");
const express = require("express");
const session = require("express-session");
const request = require("supertest");
const { ConnectStore } = require("@fluidauth/native-store/connect");
const { soon } = require("./soon.js");
const { HOUR, STORES, TIMES } = require("./stores.js");

function appOn(store) {
  const app = express();
  const cookie = { maxAge: HOUR };
  app.use(session({ secret: "for tests", resave: false, saveUninitialized: false, cookie, store }));
  app.post("/login", (req, res, next) => {
    req.session.regenerate((error) => {
      if (error) return next(error);
      req.session.user = "ada";
      res.end();
    });
  });
  app.get("/me", (req, res) => res.end(req.session.user ?? "nobody"));
  return app;
}

/** @param runner as in stores.js. `goesByDate`: also what needs a store that goes by a faked Date. */
function requestCases({ describe, it, fake }, { names, goesByDate }) {
  for (const name of names) {
    describe(`requests over ${name}`, () => {
      const test = (title, body) =>
        it(title, async () => {
          const store = new ConnectStore(STORES[name]());
          const app = appOn(store);
          // An agent would drop the cookie by the faked Date.
          let cookie = "";
          const login = async () => {
            const { headers } = await soon(request(app).post("/login"));
            [cookie] = headers["set-cookie"][0].split(";");
          };
          const me = async () => (await soon(request(app).get("/me").set("Cookie", cookie))).text;
          try {
            await body(login, me);
          } finally {
            fake.restore();
            await store.close();
          }
        });

      test("are answered while timers are faked", async (login, me) => {
        fake.use({ serves: true });
        assert.equal(await me(), "nobody");
        await login();
        for (let round = 0; round < 3; round++) assert.equal(await me(), "ada");
      });

      if (!goesByDate) return;
      for (const [when, now] of Object.entries(TIMES)) {
        test(`log in, and are logged out, by a Date that is faked to the ${when}`, async (login, me) => {
          fake.use({ now, serves: true });
          await login();
          assert.equal(await me(), "ada");
          fake.setTime(now + HOUR / 2);
          assert.equal(await me(), "ada");
          fake.setTime(now + 2 * HOUR);
          assert.equal(await me(), "nobody");
        });
      }
    });
  }
}

module.exports = { requestCases };
