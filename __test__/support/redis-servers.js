"use strict";

// Real servers for tests: on free ports of 127.0.0.1, in directories of their own, and gone with the process that has
// started them.

const { makeCertificates } = require("./redis/certificates.js");
const { startCluster } = require("./redis/cluster.js");
const { startProxy } = require("./redis/fault-proxy.js");
const { newDirectory } = require("./redis/guard.js");
const { redisMissing, tlsMissing } = require("./redis/programs.js");
const { startSentinels } = require("./redis/sentinels.js");
const { BASE, DURABLE, startOnFreePort } = require("./redis/server.js");
const { until } = require("./redis/until.js");

/**
 * A single server. What it has acknowledged outlives a kill if it `isDurable`. `users` are as Redis's ACL has them:
 * `{ ann: "on >secret ~* +@all" }`; `password` is the default user's.
 */
function startServer({ isDurable = false, password, users = {}, settings } = {}) {
  const acl = Object.entries(users).map(([name, rules]) => `${name} ${rules}`);
  return startOnFreePort(() => ({
    login: password && [password],
    settings: {
      ...BASE,
      ...(isDurable ? DURABLE : { appendonly: "no" }),
      ...(password && { requirepass: password }),
      ...(acl.length > 0 && { user: acl }),
      ...settings,
    },
  }));
}

/** One that serves with TLS alone. `certificates` has what is needed to trust it; `names` are those of its own. */
async function startTlsServer({ needsClientCertificate = false, names, settings } = {}) {
  const certificates = makeCertificates(newDirectory(), names);
  const { files, ca, cert, key } = certificates;
  const server = await startOnFreePort((port) => ({
    // It is reached at 127.0.0.1, whatever its names.
    tls: { ca, cert, key, checkServerIdentity: () => undefined },
    settings: {
      ...BASE,
      appendonly: "no",
      "tls-port": port,
      "tls-ca-cert-file": files.ca,
      "tls-cert-file": files.cert,
      "tls-key-file": files.key,
      "tls-auth-clients": needsClientCertificate ? "yes" : "no",
      ...settings,
    },
  }));
  return Object.assign(server, { certificates });
}

module.exports = {
  redisMissing,
  tlsMissing,
  makeCertificates,
  newDirectory,
  startCluster,
  startProxy,
  startSentinels,
  startServer,
  startTlsServer,
  until,
};
