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

// A longer text is no misspelt word, and may be anything.
const MAX_SHOWN_WORD = 16;

/** An option of named values. `meaning` gives the one that a word of another system stands for, if it does for any. */
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

/** The option of a store that the command line opens: its limits are none of the app's. */
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

// A URL may be of another realm.
const isUrl = (value) => typeof value?.href === "string" && typeof value.protocol === "string";

/** Says what is wrong with a path; `undefined` for one that may name a folder. */
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

/** Says what is wrong with a URL in place of a path; `undefined` for that of a file. */
function describeUrl({ href, protocol }) {
  if (protocol !== "file:") return "a URL that is not of a file";
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

// What it must be is for `secrets.js` to say. An environment variable that is missing must not store plaintext.
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
  // The addon has a constant of the same: less has no room for what a single write may need.
  maxBytes: bytes(2 ** 20),
  readOnly: boolean,
  allowNetworkFileSystem: boolean,
  ...common,
};

// What these must be is for `redis-servers.js` to say.
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
  // Longer than a minute it would hide for how long an ended session may be seen.
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

// `null` and the like must not end the session that was to be kept.
const deleteByUserOptions = {
  except: {
    expected: "the id of the session to keep, a non-empty string of at most 256 bytes",
    accepts: (value) => typeof value === "string" && isPossibleId(value),
  },
};

// What a user is, the codec knows.
const sessionsOptions = { userId: { expected: "a user id", accepts: () => true } };

const pingOptions = { timeout };

/**
 * The given options that are not `undefined`. Throws for one that is unknown, out of range, or required and missing. An
 * option with `ifUndefined` must not be `undefined` either.
 * @param {{ of?: string, within?: string, required?: string[], main?: string }} what `of`: the class or method whose
 *   options they are. `within`: the option that they are the value of. `main`: the option that a string was meant for.
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
