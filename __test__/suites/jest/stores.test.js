const { storesSuite } = require("../cases/index.js");
const { fakeOf } = require("./fake.js");

storesSuite({ describe, it, fake: fakeOf(jest) });
