// The same from CommonJS. See ../types.test.js.
import nativeStore = require("@fluidauth/native-store");
import connect = require("@fluidauth/native-store/connect");
import session = require("express-session");

const store = new connect.ConnectStore(new nativeStore.FileStore({ path: "./sessions" }));

export = session({ secret: "a secret", store });
