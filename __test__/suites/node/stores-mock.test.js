const { describe, it, mock } = require("node:test");
const { storesSuite } = require("../cases/index.js");
const { fakeOfMock } = require("./fakes.js");

storesSuite({ describe, it, fake: fakeOfMock(mock) });
