"use strict";

// Real servers for tests: on free ports of 127.0.0.1, in separate directories. They end with the process that started
// them.

const { makeCertificates } = require("./redis/certificates.js");
const { startCluster } = require("./redis/cluster.js");
const { startProxy } = require("./redis/fault-proxy.js");
const { newDirectory } = require("./redis/guard.js");
const { redisMissing, tlsMissing } = require("./redis/programs.js");
const { startSentinels } = require("./redis/sentinels.js");
const { BASE, DURABLE, startOnFreePort } = require("./redis/server.js");
const { until } = require("./redis/until.js");

/**
 * Starts a single server. With `isDurable`, acknowledged writes survive a kill. `users` have the form of Redis's ACL:
 * `{ ann: "on >secret ~* +@all" }`. `password`: that of the default user.
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

/**
 * Starts a server that requires TLS. `certificates`: what a client needs to trust it. `names`: the names in its
 * certificate.
 */
async function startTlsServer({ needsClientCertificate = false, names, settings } = {}) {
  const certificates = makeCertificates(newDirectory(), names);
  const { files, ca, cert, key } = certificates;
  const server = await startOnFreePort((port) => ({
    // It is always reached at 127.0.0.1.
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
