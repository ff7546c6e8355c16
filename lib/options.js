"use strict";

const { isUint8Array } = require("node:util/types");
const { fileURLToPath } = require("node:url");
const { invalidOption, kindOf, misuse } = require("./errors.js");
const { hintFor } = require("./option-hints.js");
const { isPossibleId } = require("./session-id.js");
const { likelySpelling } = require("./spelling.js");

const wholeNumber = (min, { of = "", example = "" } = {}) => ({
  expected: `a whole number ${of && `of ${of} `}from ${min}${example && `, such as ${example}`}`,
  accepts: (value) => Number.isSafeInteger(value) && value >= min,
});

const bytes = (min) => wholeNumber(min, { of: "bytes", example: "64 * 1024 * 1024" });
const milliseconds = (min, example) => wholeNumber(min, { of: "milliseconds", example });

const text = {
  expected: "a non-empty string",
  accepts: (value) => typeof value === "string" && value !== "" && value.isWellFormed(),
};

// A longer string is no misspelt word, so it is not shown.
const MAX_SHOWN_WORD = 16;

/** An option with named values. `meaning` maps a word of another system to one of them, if it can. */
const oneOf = (expected, values, meaning) => ({
  expected,
  accepts: (value) => values.includes(value),
  describe(value) {
    if (typeof value !== "string" && value !== true) return describeValue(value);
    const word = String(value);
    if (word === "" || word.length > MAX_SHOWN_WORD) return kindOf(value);
    const likely = meaning(word) ?? likelySpelling(word, values);
    return JSON.stringify(value) + (likely ? `: did you mean "${likely}"?` : "");
  },
});

const whenUserIsFull = {
  ...oneOf(
    '"end-oldest" (the user\'s oldest session ends) or "reject" (the new one is refused)',
    ["end-oldest", "reject"],
    (word) => {
      if (/^(?:refuse|deny|forbid|block|error)$/i.test(word)) return "reject";
      return /^(?:oldest|evict|replace)$/i.test(word) ? "end-oldest" : undefined;
    },
  ),
  needs: "maxSessionsPerUser",
};

/** Set for a store that the command line opens: its limits are not those of the app. */
const isTool = Symbol("isTool");

/** The options that every store takes. */
const common = {
  maxSessionBytes: wholeNumber(1, { of: "bytes", example: "1024 * 1024" }),
  maxSessionsPerUser: wholeNumber(1),
  whenUserIsFull,
  maxLifetime: milliseconds(1, "30 * 24 * 60 * 60 * 1000 for 30 days"),
  sweepInterval: milliseconds(0, "60 * 1000 for a minute"),
};

const memoryOptions = { name: text, maxSessions: wholeNumber(1), maxBytes: bytes(1), ...common };

const boolean = { expected: "a boolean", accepts: (value) => typeof value === "boolean" };

const path = {
  expected: 'the path of a folder, such as "/var/lib/app/sessions"',
  required: 'the folder that holds the sessions, such as "/var/lib/app/sessions"',
  accepts: (value) => describePath(value) === undefined,
  describe: describePath,
  read: (value) => (isUrl(value) ? fileURLToPath(value.href) : value),
};

// Up to the longest delay that a Node.js timer accepts.
const timeout = {
  expected: `a whole number of milliseconds from 1 to ${2 ** 31 - 1}`,
  accepts: (value) => Number.isSafeInteger(value) && value >= 1 && value < 2 ** 31,
};

// Bounded so that a pending creation ends before another process treats its user index entry as stale.
const redisCallTimeout = {
  expected: "a whole number of milliseconds from 1 to 30000",
  accepts: (value) => Number.isSafeInteger(value) && value >= 1 && value <= 30_000,
};

// No `instanceof`, because the URL may come from another realm.
const isUrl = (value) => typeof value?.href === "string" && typeof value.protocol === "string";

/** Describes what is wrong with a path. Returns `undefined` if it may name a folder. */
function describePath(value) {
  if (isUint8Array(value)) return "a Buffer: use buffer.toString()";
  if (isUrl(value)) return describeUrl(value);
  if (typeof value !== "string" || value === "") return kindOf(value);
  if (/^file:/i.test(value)) return "the string of a file: URL: use new URL(path)";
  if (/^~(?:$|[/\\])/.test(value))
    return "a path that begins with ~, which only shells know: use os.homedir()";
  if (value.includes("\0")) return "a string with a NUL character";
  if (!value.isWellFormed()) return "a string with a lone surrogate";
  return undefined;
}

/** Describes what is wrong with a URL that was given as a path. Returns `undefined` for a `file:` URL. */
function describeUrl({ href, protocol }) {
  if (protocol !== "file:") return "a URL with another scheme than file:";
  try {
    return describePath(fileURLToPath(href));
  } catch {
    return "a file: URL that names no path of this system";
  }
}

const durability = oneOf(
  '"commit" (resolves once the write is on disk) or "everysec" (on disk about a second later)',
  ["commit", "everysec"],
  (word) => {
    if (/^(?:always|f?sync|fdatasync|full|true)$/i.test(word)) return "commit";
    return /^every/i.test(word) ? "everysec" : undefined;
  },
);

// `secrets.js` checks the value. A missing environment variable must not lead to plaintext.
const secret = {
  expected: "a secret",
  accepts: () => true,
  ifUndefined: "leave it out for a store without encryption",
};

const fileOptions = {
  path,
  commandTimeout: timeout,
  durability,
  secret,
  // The addon has the same constant: a single write may need this much.
  maxBytes: bytes(2 ** 20),
  readOnly: boolean,
  allowNetworkFileSystem: boolean,
  ...common,
};

// `redis-servers.js` checks these.
const judgedLater = { expected: "given", accepts: () => true };

const redisOptions = {
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
  secret,
  commandTimeout: redisCallTimeout,
  connectTimeout: timeout,
  waitReplicas: {
    expected: "a whole number from 0 to 100",
    accepts: (value) => Number.isInteger(value) && value >= 0 && value <= 100,
  },
  tls: judgedLater,
  cache: judgedLater,
  ...common,
};

const cacheOptions = {
  maxBytes: bytes(2 ** 20),
  // Beyond a minute, users would not expect an ended session to stay visible for so long.
  maxStaleness: {
    expected: "a whole number of milliseconds from 1 to 60000",
    accepts: (value) => Number.isSafeInteger(value) && value >= 1 && value <= 60_000,
  },
};

const sentinelOptions = {
  urls: { ...judgedLater, required: 'the URLs of the sentinels, such as ["redis://localhost:26379"]' },
  master: { ...text, required: "the name by which the sentinels know the primary" },
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

// Reject `null` and the like, which would end the session that the app wants to keep.
const deleteByUserOptions = {
  except: {
    expected: "the id of the session to keep, a non-empty string of at most 256 bytes",
    accepts: (value) => typeof value === "string" && isPossibleId(value),
  },
};

// The codec checks the user id.
const sessionsOptions = { userId: { expected: "a user id", accepts: () => true } };

const pingOptions = { timeout };

/**
 * Returns the options that are not `undefined`. Throws if one is unknown, out of range, or required and missing. An
 * option with `ifUndefined` must not be `undefined`.
 * @param {{ of?: string, within?: string, required?: string[], main?: string }} what `of`: the class or method that
 * takes the options. `within`: the option whose value they are. `main`: the option that a string was probably meant
 * for.
 */
function validateOptions(options = {}, known, { of, within, required = [], main }) {
  if (options === null || typeof options !== "object" || Array.isArray(options)) {
    const hint = typeof options === "string" && main ? `: did you mean { ${main}: … }?` : "";
    throw invalidOption(within ?? "options", "an object", kindOf(options) + hint);
  }
  const nameOf = (name) => (within ? `${within}.${name}` : name);
  const given = {};
  for (const [name, value] of Object.entries(options)) {
    if (!Object.hasOwn(known, name)) throw unknownOption(name, Object.keys(known), within ?? of);
    const { expected, accepts, describe = describeValue, read, ifUndefined } = known[name];
    if (value === undefined && ifUndefined) throw misuse(`${nameOf(name)} is undefined: ${ifUndefined}`);
    if (value === undefined) continue;
    if (!accepts(value)) throw invalidOption(nameOf(name), expected, describe(value));
    given[name] = read ? read(value) : value;
  }
  const missing = required.find((name) => !Object.hasOwn(given, name));
  if (missing !== undefined) {
    const got = Object.hasOwn(options, missing) ? "; got undefined" : "";
    throw misuse(`${nameOf(missing)} is required: ${known[missing].required}${got}`);
  }
  for (const name of Object.keys(given)) {
    const { needs } = known[name];
    if (needs && !Object.hasOwn(given, needs)) {
      const { expected } = known[needs];
      throw misuse(`${nameOf(name)} needs ${needs} beside it: ${needs} must be ${expected}; got undefined`);
    }
  }
  return given;
}

const describeValue = (value) => (typeof value === "number" ? String(value) : kindOf(value));

const unknownOption = (name, known, of) =>
  misuse(`${of} has no option ${JSON.stringify(name)}: ${hintFor(name, known, of)}`);

module.exports = {
  isTool,
  validateOptions,
  text,
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
