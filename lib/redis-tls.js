"use strict";

const fs = require("node:fs");
const { misuse } = require("./errors.js");
const { tlsOptions, validateOptions } = require("./options.js");

/** Returns the TLS settings, or `undefined` if no server uses TLS. */
function readTls(given, { servers, masterLogin }) {
  if (!masterLogin?.tls && !servers.some((server) => server.tls)) {
    if (given === undefined) return {};
    throw misuse(
      "tls needs URLs that begin with rediss:// or valkeys://; the given ones connect without TLS",
    );
  }
  const options = validateOptions(given, tlsOptions, { within: "tls" });
  const { ca, cert, key, servername, rejectUnauthorized } = options;
  const acceptAny = rejectUnauthorized === false;
  return {
    ...(ca === undefined
      ? !acceptAny && { defaultAuthorities: defaultAuthorities() }
      : { ca: [ca].flat().map(toText) }),
    cert: toText(cert),
    key: toText(key),
    servername,
    acceptAny,
  };
}

const toText = (pem) => (pem === undefined || typeof pem === "string" ? pem : Buffer.from(pem).toString());

/** Returns the authorities that Node.js trusts, as PEM text. */
function defaultAuthorities() {
  // Load it on demand: it takes longer than this package.
  const tls = require("node:tls");
  // Available since Node.js 22.15.
  if (tls.getCACertificates !== undefined) return tls.getCACertificates("default").join("\n");
  return [...(tls.rootCertificates ?? []), extraAuthorities()].join("\n");
}

function extraAuthorities() {
  const { NODE_EXTRA_CA_CERTS: file } = process.env;
  if (!file) return "";
  try {
    return fs.readFileSync(file, "utf8");
  } catch (error) {
    // The same warning as Node.js gives.
    process.emitWarning(`Ignoring extra certs from \`${file}\`, load failed: ${error.message}`);
    return "";
  }
}

module.exports = { readTls };
