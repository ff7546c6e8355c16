"use strict";

const { isUint8Array } = require("node:util/types");
const { SessionStoreError, invalidOption, kindOf } = require("./errors.js");
const { likelySpelling } = require("./spelling.js");

const wholeNumber = (min) => ({
  expected: `a whole number from ${min} to ${Number.MAX_SAFE_INTEGER}`,
  accepts: (value) => Number.isSafeInteger(value) && value >= min,
});

const text = {
  expected: "a non-empty string",
  accepts: (value) => typeof value === "string" && value !== "" && value.isWellFormed(),
};

/** The options that every store takes. */
const common = {
  maxSessionBytes: wholeNumber(1),
  maxSessionsPerUser: wholeNumber(1),
  maxLifetime: wholeNumber(1),
  sweepInterval: wholeNumber(0),
};

const memoryOptions = { ...common, name: text, maxSessions: wholeNumber(1), maxBytes: wholeNumber(1) };

const boolean = { expected: "a boolean", accepts: (value) => typeof value === "boolean" };

const path = {
  expected: 'the path of a folder, a non-empty string such as "/var/lib/app/sessions"',
  accepts: (value) => describePath(value) === undefined,
  describe: describePath,
};

// So many milliseconds a timer of Node.js can wait.
const timeout = {
  expected: `a whole number of milliseconds from 1 to ${2 ** 31 - 1}`,
  accepts: (value) => Number.isSafeInteger(value) && value >= 1 && value < 2 ** 31,
};

// A creation that is under way has ended before anybody takes its entry in the user index for a leftover.
const redisCallTimeout = {
  expected: "a whole number of milliseconds from 1 to 30000",
  accepts: (value) => Number.isSafeInteger(value) && value >= 1 && value <= 30_000,
};

/** Says what is wrong with a path; `undefined` for one that may name a folder. */
function describePath(value) {
  if (isUint8Array(value)) return "a Buffer: a path is text, such as buffer.toString()";
  // A URL may be of another realm.
  if (typeof value?.href === "string" && typeof value.protocol === "string")
    return "a URL: convert it by fileURLToPath() of node:url";
  if (typeof value !== "string" || value === "") return kindOf(value);
  if (/^file:\/\//i.test(value)) return "the text of a file: URL: convert it by fileURLToPath() of node:url";
  if (value.includes("\0")) return "a string with a NUL character";
  if (!value.isWellFormed()) return "a string with a lone surrogate";
  return undefined;
}

// A longer text is no misspelt word, and may be anything.
const MAX_SHOWN_WORD = 16;

const durabilities = ["commit", "everysec"];

const durability = {
  expected: '"commit" (resolves once the write is on disk) or "everysec" (on disk about a second later)',
  accepts: (value) => durabilities.includes(value),
  describe: describeDurability,
};

/** Shows a wrong durability and, where one is near, the value that it may have been meant to be. */
function describeDurability(value) {
  if (typeof value !== "string" && value !== true) return describeValue(value);
  const word = String(value);
  if (word === "" || word.length > MAX_SHOWN_WORD) return kindOf(value);
  const likely = likelyDurability(word);
  return JSON.stringify(value) + (likely ? `: did you mean "${likely}"?` : "");
}

/** Knows the words of Redis and SQLite, and misspellings. */
function likelyDurability(word) {
  if (/^(?:always|f?sync|fdatasync|full|true)$/i.test(word)) return "commit";
  if (/^every/i.test(word)) return "everysec";
  return likelySpelling(word, durabilities);
}

const fileOptions = {
  ...common,
  path,
  commandTimeout: timeout,
  durability,
  // What it must be is for `readSecrets` to say.
  secret: { expected: "a secret", accepts: () => true },
  // The addon has a constant of the same: less has no room for what a single write may need.
  maxBytes: wholeNumber(2 ** 20),
  readOnly: boolean,
  allowNetworkFileSystem: boolean,
};

// What these must be is for `redis-servers.js` and `secrets.js` to say.
const judgedLater = { expected: "given", accepts: () => true };

const redisOptions = {
  ...common,
  url: judgedLater,
  cluster: judgedLater,
  sentinel: judgedLater,
  clientName: {
    expected: "1 to 64 printable ASCII characters without a space",
    accepts: (value) => typeof value === "string" && /^[!-~]{1,64}$/.test(value),
  },
  username: text,
  password: text,
  credentials: {
    expected: "a function that gives { username, password }, or a promise of it",
    accepts: (value) => typeof value === "function",
  },
  prefix: {
    expected: "a non-empty string of at most 256 bytes",
    accepts: (value) => text.accepts(value) && Buffer.byteLength(value) <= 256,
  },
  secret: judgedLater,
  commandTimeout: redisCallTimeout,
  connectTimeout: timeout,
  waitReplicas: {
    expected: "a whole number from 0 to 100",
    accepts: (value) => Number.isInteger(value) && value >= 0 && value <= 100,
  },
  tls: judgedLater,
  cache: judgedLater,
};

const cacheOptions = {
  maxBytes: {
    expected: `a whole number of bytes from ${2 ** 20} to ${Number.MAX_SAFE_INTEGER}`,
    accepts: (value) => Number.isSafeInteger(value) && value >= 2 ** 20,
  },
  // Longer than a minute it would hide for how long an ended session may be seen.
  maxStaleness: {
    expected: "a whole number of milliseconds from 1 to 60000",
    accepts: (value) => Number.isSafeInteger(value) && value >= 1 && value <= 60_000,
  },
};

const sentinelOptions = {
  urls: judgedLater,
  master: text,
  username: text,
  password: text,
  database: {
    expected: `a whole number from 0 to ${2 ** 31 - 1}`,
    accepts: (value) => Number.isInteger(value) && value >= 0 && value < 2 ** 31,
  },
};

const isPem = (value) => text.accepts(value) || (isUint8Array(value) && value.length > 0);

const pem = { expected: "PEM text, or a Buffer of it", accepts: isPem };

const pems = {
  expected: "PEM text, a Buffer of it, or a list of those",
  accepts: (value) => isPem(value) || (Array.isArray(value) && value.length > 0 && value.every(isPem)),
};

const tlsOptions = {
  ca: pems,
  cert: pem,
  key: pem,
  servername: text,
  rejectUnauthorized: boolean,
};

const progressOptions = {
  onProgress: { expected: "a function", accepts: (value) => typeof value === "function" },
};

// Any value: the addon knows what an id is, and refuses `null`, which must not end the session that was to be kept.
const anything = { expected: "anything", accepts: () => true };

const deleteByUserOptions = { except: anything };

// What a user is, the codec knows.
const sessionsOptions = { userId: anything };

const pingOptions = { timeout };

/** The given options that are not `undefined`. Throws for one that is unknown, out of range, or required and missing. */
function validateOptions(options = {}, known, required = []) {
  if (options === null || typeof options !== "object" || Array.isArray(options)) {
    throw invalidOption("options", "an object", kindOf(options));
  }
  const given = {};
  for (const [name, value] of Object.entries(options)) {
    if (!Object.hasOwn(known, name)) throw unknown(name, Object.keys(known));
    if (value === undefined) continue;
    const { expected, accepts, describe = describeValue } = known[name];
    if (!accepts(value)) throw invalidOption(name, expected, describe(value));
    given[name] = value;
  }
  const missing = required.find((name) => !Object.hasOwn(given, name));
  if (missing) throw invalidOption(missing, known[missing].expected, "undefined");
  return given;
}

/** Calls what validates an option's own options, and has its errors name that option too. */
function within(option, validate) {
  try {
    return validate();
  } catch (error) {
    const message = error.message.replace(/^(options\b|unknown option )?/, (start) => {
      if (start === "options") return option;
      return start === "" ? `${option}.` : `unknown option of ${option}: `;
    });
    throw new SessionStoreError(error.code, message);
  }
}

const describeValue = (value) => (typeof value === "number" ? String(value) : kindOf(value));

function unknown(name, known) {
  const likely = likelySpelling(name, known);
  const hint = likely ? `did you mean ${likely}?` : `the options are ${known.join(", ")}`;
  return new SessionStoreError("ERR_INVALID_OPTION", `unknown option ${JSON.stringify(name)}: ${hint}`);
}

module.exports = {
  validateOptions,
  within,
  text,
  anything,
  path,
  fileOptions,
  memoryOptions,
  redisOptions,
  cacheOptions,
  sentinelOptions,
  tlsOptions,
  deleteByUserOptions,
  sessionsOptions,
  pingOptions,
  progressOptions,
};
