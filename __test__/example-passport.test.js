"use strict";

const { expressServer } = require("../examples/shared/serve");
const { testExample } = require("./support/example-suite.js");

testExample({ name: "passport", cookieName: "passport-example-session", toServer: expressServer });
