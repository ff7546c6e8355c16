const { describe, it, mock } = require("node:test");
const { connectSuite } = require("../cases/index.js");
const { fakeOfMock } = require("./fakes.js");

connectSuite({ describe, it, fake: fakeOfMock(mock) });
