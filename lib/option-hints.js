"use strict";

const { likelySpelling } = require("./spelling.js");

// Our options, and their names in other stores and clients, in lower case.
const SYNONYMS = {
  path: "dir directory folder file filename filepath location dbpath basedir",
  url: "host hostname port uri socket redis redisurl server connectionstring",
  cluster: "nodes startupnodes rootnodes",
  sentinel: "sentinels",
  urls: "sentinels hosts nodes",
  master: "name mastername",
  database: "db",
  prefix: "keyprefix namespace",
  secret: "encryptionkey encryption crypto cryptokey secretkey key",
  commandTimeout: "timeout requesttimeout sockettimeout",
  connectTimeout: "connectiontimeout",
  maxSessions: "max limit capacity maxkeys maxentries maxitems",
  maxBytes: "maxsize size mapsize maxmemory",
  maxSessionBytes: "maxsessionsize maxlength",
  maxSessionsPerUser: "maxperuser sessionsperuser maxdevices maxlogins",
  maxLifetime: "absolutetimeout maxsessionlifetime",
  sweepInterval: "checkperiod reapinterval cleanupinterval pruneinterval prunesessioninterval",
  durability: "fsync sync synchronous durable",
  allowNetworkFileSystem: "allownetwork nfs",
  ttl: "maxage expiration expiry expires expiresin lifetime sessionduration",
  touchAfter: "disabletouch touchinterval",
  userId: "getuserid getuser user uid",
  except: "keep exclude exceptid",
};

// Options that only one class has, and how to pass them.
const OWNERS = [
  ["ConnectStore", "ttl touchAfter userId", (option) => `new ConnectStore(store, { ${option} })`],
  ["FileStore", "path", () => "new FileStore({ path })"],
  [
    "FileStore",
    "durability readOnly allowNetworkFileSystem",
    (option) => `new FileStore({ path, ${option} })`,
  ],
  ["RedisStore", "url cluster sentinel", (option) => `new RedisStore({ ${option} })`],
  ["RedisStore", "tls waitReplicas cache credentials", (option) => `new RedisStore({ url, ${option} })`],
  ["MemoryStore", "maxSessions name", (option) => `new MemoryStore({ ${option} })`],
];

// Options of the underlying store of a ConnectStore.
const OF_STORES = "secret maxBytes maxSessionBytes maxSessionsPerUser sweepInterval commandTimeout".split(
  " ",
);

const OWN_CONNECTIONS = 'it makes its own connections: give url, such as "redis://localhost:6379"';
const DATABASE = 'the number of the database is in url, such as "redis://localhost:6379/1"';

// Names without a corresponding option.
const ANSWERS = {
  RedisStore: { client: OWN_CONNECTIONS, redisClient: OWN_CONNECTIONS, db: DATABASE, database: DATABASE },
  ConnectStore: { client: "a Redis server is given to the store: new ConnectStore(new RedisStore({ url }))" },
};

/** Suggests what an unknown option of `of` may mean. Returns the end of a sentence. */
function hintFor(name, known, of) {
  const answer = ANSWERS[of];
  if (answer && Object.hasOwn(answer, name)) return answer[name];
  const synonyms = synonymsOf(name);
  const meant = synonyms.find((option) => known.includes(option));
  const elsewhere = ownerOf(name, name, of);
  const likely = meant ?? (elsewhere ? undefined : likelySpelling(name, known));
  if (likely) return `did you mean ${likely}${likely === "url" ? ', such as "redis://localhost:6379"' : ""}?`;
  const owners = [elsewhere, ...synonyms.map((option) => ownerOf(option, name, of))];
  return owners.find((owner) => owner !== undefined) ?? `the options are ${known.join(", ")}`;
}

/** Returns our options that have this name elsewhere. */
function synonymsOf(name) {
  const word = name.toLowerCase().replaceAll(/[-_]/g, "");
  return Object.keys(SYNONYMS).filter((option) => SYNONYMS[option].split(" ").includes(word));
}

/** Names the class that has the option. `name` is the name that the app used. */
function ownerOf(option, name, of) {
  const is = option === name ? "it is" : `${option} is`;
  if (of === "ConnectStore" && OF_STORES.includes(option)) {
    return `${is} an option of the store: new ConnectStore(new FileStore({ path, ${option} }))`;
  }
  const owner = OWNERS.find(([, options]) => options.split(" ").includes(option));
  if (owner === undefined) return undefined;
  const [Store, , example] = owner;
  const made = of === "ConnectStore" ? `new ConnectStore(${example(option)})` : example(option);
  return `${is} an option of ${Store}: ${made}`;
}

module.exports = { hintFor };
