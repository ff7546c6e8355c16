const { describe, it } = require("node:test");
const sinon = require("sinon");
const { storesSuite } = require("../cases/index.js");
const { fakeOfSinon } = require("./fakes.js");

storesSuite({ describe, it, fake: fakeOfSinon(sinon) });
