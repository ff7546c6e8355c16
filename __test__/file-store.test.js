"use strict";

const fs = require("node:fs");
const os = require("node:os");
const path = require("node:path");
const { after } = require("node:test");
const { FileStore, SessionStoreError } = require("..");
const { conformance } = require("./conformance.js");

// In memory where there is such a place: what is asked here is not whether the disk keeps it.
const shm = "/dev/shm";
const root = fs.mkdtempSync(path.join(fs.existsSync(shm) ? shm : os.tmpdir(), "native-store-"));
after(() => fs.rmSync(root, { recursive: true }));

let made = 0;
const open = (options, Store = FileStore) => new Store({ path: path.join(root, `${++made}`), ...options });

conformance("FileStore", async (options, Store) => open(options, Store), { SessionStoreError });
conformance(
  "FileStore with a secret",
  async (options, Store) =>
    open({ secret: ["a secret of some length", Buffer.alloc(32, 7)], ...options }, Store),
  { SessionStoreError },
);
conformance(
  "FileStore with limits",
  async (options, Store) => open({ maxBytes: 2 ** 28, maxSessionsPerUser: 1e6, ...options }, Store),
  { SessionStoreError },
);
