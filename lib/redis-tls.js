"use strict";

const fs = require("node:fs");
const { misuse } = require("./errors.js");
const { tlsOptions, validateOptions } = require("./options.js");

/** What connections by TLS are made with; nothing where no server is reached so. */
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

/** The authorities that Node trusts, as PEM text. */
function defaultAuthorities() {
  // Here, as it takes longer to load than this package.
  const tls = require("node:tls");
  // Node has it from 22.15 on.
  if (tls.getCACertificates !== undefined) return tls.getCACertificates("default").join("\n");
  return [...(tls.rootCertificates ?? []), extraAuthorities()].join("\n");
}

function extraAuthorities() {
  const { NODE_EXTRA_CA_CERTS: file } = process.env;
  if (!file) return "";
  try {
    return fs.readFileSync(file, "utf8");
  } catch (error) {
    // As Node does.
    process.emitWarning(`Ignoring extra certs from \`${file}\`, load failed: ${error.message}`);
    return "";
  }
}

module.exports = { readTls };
