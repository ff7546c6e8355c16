"use strict";

const { domainToASCII } = require("node:url");
const { invalidOption, kindOf, misuse } = require("./errors.js");
const { sentinelOptions, validateOptions } = require("./options.js");

const DEFAULT_PORT = 6379;
const DEFAULT_SENTINEL_PORT = 26379;
const MAX_DATABASE = 2 ** 31 - 1;

const SERVER =
  "a URL such as redis://localhost:6379, rediss://user:password@host:6379/0 or unix:///run/redis.sock?db=0";
const SERVERS = 'one of url, cluster and sentinel, such as url: "redis://localhost:6379"';
const NO_URL = "a string that is not a URL";
const NO_SCHEME = "a string that does not begin with redis:// or rediss://";
const OF_MANY = "such as redis://user:password@host:6379, or rediss:// for TLS, with no database";
const NODE = `a URL ${OF_MANY}`;
const NODES = `a list of URLs ${OF_MANY}`;

// Valkey's schemes mean the same.
const SCHEME = /^(?:redis|valkey)s?:\/\//i;
const UNIX_SOCKET = /^(?:unix|(?:redis|valkey)\+unix):\/\/(?:([^/?#]*)@)?(?=\/)/i;
// The forms of other clients, or plain paths.
const OTHER_UNIX_SOCKET = /^(?:unix:|(?:redis|valkey)s?(?:\+unix|-socket):|\/)/i;
// The longest path, in bytes, that fits the system's socket address.
const MAX_SOCKET_PATH = process.platform === "linux" ? 107 : 103;
const NO_HOST = /^[a-z]+:\/\/(?:[^/?#]*@)?(?::\d*)?(?:$|[/?#])/i;

/**
 * Reads the servers and the login from the options. Exactly one kind of server must be given. No error shows a URL,
 * because it may contain a password.
 */
function readServers({ url, cluster, sentinel, ...login }) {
  checkLogin(login);
  const kinds = Object.entries({ url, cluster, sentinel }).filter(([, value]) => value !== undefined);
  if (kinds.length !== 1) {
    const given = kinds.length === 0 ? "" : `; got ${kinds.map(([name]) => name).join(" and ")}`;
    throw misuse(`RedisStore needs ${SERVERS}${given}`);
  }
  if (url !== undefined) {
    return { mode: "single", servers: [readServer("url", SERVER, url, DEFAULT_PORT, login)] };
  }
  if (cluster !== undefined) return { mode: "cluster", servers: readNodes(cluster, login) };
  return { mode: "sentinel", ...readSentinel(sentinel, login) };
}

function checkLogin({ username, password, credentials }) {
  if (credentials === undefined) return;
  const other = Object.entries({ username, password }).find(([, value]) => value !== undefined);
  if (other) throw misuse(`${other[0]} and credentials exclude each other: credentials gives the login`);
}

/** Merges the login of a URL with the options. Each part may be given once. */
function joinLogin(place, own, { username, password, credentials }) {
  for (const [name, value] of Object.entries({ username, password })) {
    if (own[name] === undefined) continue;
    if (credentials !== undefined) {
      throw misuse(`credentials gives the login: remove the ${name} from ${place}`);
    }
    if (value !== undefined) throw misuse(`${name} is given twice: as an option, and in ${place}`);
  }
  if (username !== undefined && password === undefined && own.password === undefined) {
    throw misuse("password is required where username is given");
  }
  return { username: own.username ?? username, password: own.password ?? password };
}

function readNodes(cluster, login) {
  const servers = readList("cluster", cluster, DEFAULT_PORT, login);
  const [{ username, password, tls }] = servers;
  if (servers.some((node) => node.username !== username || node.password !== password || node.tls !== tls)) {
    throw invalidOption("cluster", "URLs with the same login and protocol", "URLs that differ");
  }
  return servers;
}

function readSentinel(sentinel, login) {
  const what = { within: "sentinel", required: ["urls", "master"] };
  const { urls, master, username, password, database } = validateOptions(sentinel, sentinelOptions, what);
  const servers = readList("sentinel.urls", urls, DEFAULT_SENTINEL_PORT);
  // With TLS to the sentinels, the data servers use TLS, too.
  const { tls } = servers[0];
  if (servers.some((server) => server.tls !== tls)) {
    throw invalidOption("sentinel.urls", "URLs with the same protocol", "URLs that differ");
  }
  const joined = joinLogin("sentinel", { username, password }, login);
  if (joined.username !== undefined && joined.password === undefined) {
    throw misuse("sentinel.password is required where sentinel.username is given");
  }
  // The sentinels report its host and port.
  const masterLogin = { host: "", port: 0, tls, ...joined, database: database ?? 0 };
  return { servers, master, masterLogin };
}

function readList(option, urls, defaultPort, login) {
  if (!Array.isArray(urls)) throw invalidOption(option, NODES, kindOf(urls));
  if (urls.length === 0) throw invalidOption(option, NODES, "an empty list");
  // A copy, because `map` skips the holes of a sparse array.
  return [...urls].map((url, at) => {
    const server = readServer(`${option}[${at}]`, NODE, url, defaultPort, login);
    if (server.database !== 0) throw invalidOption(`${option}[${at}]`, NODE, "a URL with a database");
    return server;
  });
}

function readServer(option, expected, url, defaultPort, login = {}) {
  if (typeof url !== "string") throw invalidOption(option, expected, kindOf(url));
  const refuse = (given) => invalidOption(option, expected, given);
  const fault = faultOfPlace(url);
  if (fault !== undefined) throw refuse(fault);
  const parsed = parsePlace(url);
  if (parsed === null) throw refuse(NO_URL);
  const isSocket = isUnixSocket(url);
  if (isSocket && option !== "url") throw refuse("a Unix socket, which only url supports");
  const place = isSocket ? readSocket(parsed, refuse) : readAddress(parsed, defaultPort, refuse);
  const { database } = place;
  if (!/^\d*$/.test(database) || Number(database) > MAX_DATABASE)
    throw refuse("a URL whose database is not a number");
  const [username, password] = [decode(parsed.username), decode(parsed.password)];
  if (username === null || password === null) throw refuse("a URL whose login is not percent-encoded");
  const own = { username: username || undefined, password: password || undefined };
  const joined = joinLogin(option, own, login);
  if (joined.username !== undefined && joined.password === undefined) {
    throw refuse("a URL with a user but no password");
  }
  return { ...place, ...joined, database: Number(database) };
}

function readAddress({ hostname, port, protocol, pathname, search, hash }, defaultPort, refuse) {
  const host = hostOf(hostname);
  if (host === "") throw refuse(NO_URL);
  if (search || hash) throw refuse("a URL with a query or a fragment");
  if (port === "0") throw refuse("a URL with port 0");
  return {
    host,
    port: port === "" ? defaultPort : Number(port),
    tls: ["rediss:", "valkeys:"].includes(protocol),
    database: pathname.replace(/^\//, ""),
  };
}

function readSocket({ pathname, searchParams, hash }, refuse) {
  const path = decode(pathname);
  if (path === null || path.includes("\0")) throw refuse("a URL whose path is not percent-encoded");
  if (path.endsWith("/")) throw refuse("a URL whose path is that of a folder");
  if (Buffer.byteLength(path) > MAX_SOCKET_PATH) {
    throw refuse(`a URL whose path is longer than ${MAX_SOCKET_PATH} bytes`);
  }
  const database = searchParams.get("db") ?? "";
  const isMore = searchParams.size > 1 || (searchParams.size === 1 && !searchParams.has("db"));
  if (hash || isMore) throw refuse("a URL with more than a path and ?db=");
  return { host: path, port: 0, tls: false, database };
}

const isUnixSocket = (url) => UNIX_SOCKET.test(url);

/** Describes why a string cannot name a server. Returns `undefined` if it may. */
function faultOfPlace(url) {
  if (isUnixSocket(url)) {
    return process.platform === "win32" ? "a Unix socket, which is not supported on Windows" : undefined;
  }
  if (OTHER_UNIX_SOCKET.test(url)) return "a Unix socket that is not written as unix:///run/redis.sock";
  if (!SCHEME.test(url)) return url === "" ? "an empty string" : NO_SCHEME;
  if (!NO_HOST.test(url)) return undefined;
  return /\/\/\/\D/.test(url)
    ? "a URL without a host; a Unix socket is written as unix:///run/redis.sock"
    : "a URL without a host";
}

/**
 * Returns a host in the form for DNS lookup, or an empty string if it is invalid. Non-ASCII letters are encoded as in
 * DNS.
 */
function hostOf(hostname) {
  // `URL` percent-encodes such letters in non-special schemes.
  if (hostname.includes("%")) {
    const name = decode(hostname) ?? "";
    return /[/\\?#@:]/.test(name) ? "" : domainToASCII(name);
  }
  return hostname.replace(/^\[|\]$/g, "");
}

/**
 * Returns the parts of a URL, or `null`. The URL of a Unix socket gets a host, because `URL` accepts no login without
 * one.
 */
function parsePlace(url) {
  try {
    return new URL(
      url.replace(UNIX_SOCKET, (_, login) => `unix://${login === undefined ? "" : `${login}@`}localhost`),
    );
  } catch {
    // Drop the error: its message shows the URL.
    return null;
  }
}

function decode(text) {
  try {
    return decodeURIComponent(text);
  } catch {
    return null;
  }
}

module.exports = { faultOfPlace, isUnixSocket, parsePlace, readServers };
