"use strict";

const { FileStore, SessionStoreError } = require("..");
const { conformance } = require("./conformance.js");
const { makePlace } = require("./support/file-places.js");

const { next: newFolder } = makePlace();

const withOptions =
  (given) =>
  async (options, Store = FileStore) =>
    new Store({ path: newFolder(), ...given, ...options });

const ownStats = ["fileBytes", "log", "queuedBytes", "maxQueuedBytes"];

conformance("FileStore", withOptions({}), { SessionStoreError }, { ownStats });
conformance(
  "FileStore with a secret",
  withOptions({ secret: ["a secret of some length", Buffer.alloc(32, 7)] }),
  { SessionStoreError },
  { ownStats },
);
conformance(
  "FileStore with limits",
  withOptions({ maxBytes: 2 ** 28, maxSessionsPerUser: 1e6 }),
  { SessionStoreError },
  { ownStats },
);
conformance(
  "FileStore of durability everysec",
  withOptions({ durability: "everysec" }),
  { SessionStoreError },
  { ownStats },
);
