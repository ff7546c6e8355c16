"use strict";

const { randomBytes } = require("node:crypto");

const DAY = 24 * 60 * 60 * 1000;

/** As most apps set it; with a maxAge, each request that changes nothing touches its session. */
const sessionOptions = (store, resave = false) => ({
  store,
  resave,
  secret: "a secret of the benchmark, which is not secret",
  saveUninitialized: false,
  cookie: { maxAge: DAY },
});

/** What a login puts into a session: with the cookie some 500 bytes of JSON, none like another. */
function loginData() {
  const random = randomBytes(40).toString("hex");
  return {
    user: {
      id: random.slice(0, 16),
      name: "Ada Lovelace",
      email: "ada.lovelace@example.com",
      roles: ["user", "editor"],
    },
    csrf: random.slice(16, 64),
    device: "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0",
    cart: [{ article: random.slice(64), count: 1, price: "19.99" }],
  };
}

module.exports = { loginData, sessionOptions };
