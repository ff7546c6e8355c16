"use strict";

const { execFileSync } = require("node:child_process");
const fs = require("node:fs");
const path = require("node:path");

const DAYS = ["-days", "2"];
const KEY = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"];

const LOCAL = "IP:127.0.0.1,DNS:localhost";

/**
 * Creates an authority, and a certificate from it for some names, in a directory. Returns the paths and texts of the
 * files.
 */
function makeCertificates(directory, names = LOCAL) {
  const at = (name) => path.join(directory, name);
  const openssl = (...args) => execFileSync("openssl", args, { stdio: ["ignore", "ignore", "pipe"] });
  const name = (text) => ["-subj", `/CN=${text}`];

  const authority = ["-keyout", at("ca.key"), "-out", at("ca.pem")];
  openssl("req", "-x509", ...KEY, ...DAYS, ...name("an authority of tests"), ...authority);
  openssl("req", ...KEY, ...name("localhost"), "-keyout", at("server.key"), "-out", at("server.csr"));
  fs.writeFileSync(
    at("server.ext"),
    `basicConstraints=CA:FALSE\nextendedKeyUsage=serverAuth,clientAuth\nsubjectAltName=${names}\n`,
  );
  const signing = [
    "-CA",
    at("ca.pem"),
    "-CAkey",
    at("ca.key"),
    "-CAcreateserial",
    "-extfile",
    at("server.ext"),
  ];
  openssl("x509", "-req", "-in", at("server.csr"), "-out", at("server.pem"), ...DAYS, ...signing);
  return {
    files: { ca: at("ca.pem"), cert: at("server.pem"), key: at("server.key") },
    ca: fs.readFileSync(at("ca.pem"), "utf8"),
    cert: fs.readFileSync(at("server.pem"), "utf8"),
    key: fs.readFileSync(at("server.key"), "utf8"),
  };
}

module.exports = { makeCertificates };
