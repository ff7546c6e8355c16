"use strict";

const { randomBytes } = require("node:crypto");

const DAY = 24 * 60 * 60 * 1000;

/** The options of most apps. With a maxAge, each request without a change touches its session. */
const sessionOptions = (store, resave = false) => ({
  store,
  resave,
  secret: "a secret of the benchmark, which is not secret",
  saveUninitialized: false,
  cookie: { maxAge: DAY },
});

/** The session data of a login: some 500 bytes of JSON with the cookie, different each time. */
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
