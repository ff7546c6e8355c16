"use strict";

const { testExample } = require("./support/example-suite.js");

testExample({ name: "fastify", cookieName: "fastify-example-session", toServer: (app) => app });
