const { describe, it } = require("node:test");
const sinon = require("sinon");
const { connectSuite } = require("../cases/index.js");
const { fakeOfSinon } = require("./fakes.js");

connectSuite({ describe, it, fake: fakeOfSinon(sinon) });
