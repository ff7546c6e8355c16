// The same package from CommonJS, by the syntax that compiles to `require`. See ../types.test.js.
import fluidauth = require("@fluidauth/express");
import nativeStore = require("@fluidauth/native-store");

const { guardSession, MemoryStore, SessionStoreError } = nativeStore;

const store: fluidauth.BaseSessionStore = new MemoryStore({ maxBytes: 1e8 });
const session: fluidauth.Session = guardSession(new fluidauth.Session({ secret: "a secret", store }));

export = {
  session,
  codeOf(error: unknown): nativeStore.SessionStoreErrorCode | undefined {
    return error instanceof SessionStoreError ? error.code : undefined;
  },
};
