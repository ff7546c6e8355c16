const { connectSuite } = require("../cases/index.js");
const { fakeOf } = require("./fake.js");

connectSuite({ describe, it, fake: fakeOf(jest) });
