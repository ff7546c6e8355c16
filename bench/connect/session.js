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
const loginData = () => ({
  user: {
    id: randomBytes(8).toString("hex"),
    name: "Ada Lovelace",
    email: "ada.lovelace@example.com",
    roles: ["user", "editor"],
  },
  csrf: randomBytes(24).toString("hex"),
  device: "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0",
  cart: [{ article: randomBytes(8).toString("hex"), count: 1, price: "19.99" }],
});

module.exports = { loginData, sessionOptions };
