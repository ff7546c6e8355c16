"use strict";

// What `npm run matrix` runs, as ranges that npm knows. docs/support.md names the same versions, and a test compares them.
// A row is one line of the table: an app on a runtime, or a compiler.

const NEWEST = "latest";

const NODE = ["20", "22", "24", NEWEST];
const TYPESCRIPT = ["5.0", "5.1", "5.2", "5.3", "5.4", "5.5", "5.6", "5.7", "5.8", "5.9", "6.0", NEWEST];

const RUNTIMES = [
  ...NODE.map((range) => ({ kind: "node", range })),
  { kind: "bun", range: NEWEST },
  { kind: "deno", range: NEWEST },
];

const EXPRESS = ["4", "5"];
/** The first is the oldest that package.json takes. */
const EXPRESS_SESSION = ["1.17.0", "1.18", "1.19"];

/** Each with the Fastify and the @fastify/cookie that it is for. The first is the oldest that package.json takes. */
const FASTIFY_SESSION = [
  { session: "10.0.0", fastify: "4", cookie: "9" },
  { session: "10", fastify: "4", cookie: "9" },
  { session: "11.0", fastify: "5", cookie: "11" },
  { session: "11.1", fastify: "5", cookie: "11" },
];

/** What an app needs beside this package. */
const APPS = {
  express: { express: NEWEST, "express-session": NEWEST },
  fastify: { fastify: NEWEST, "@fastify/cookie": NEWEST, "@fastify/session": NEWEST },
};

const onRuntimes = RUNTIMES.flatMap((runtime) =>
  Object.entries(APPS).map(([app, packages]) => {
    const version = runtime.range === NEWEST ? "newest" : runtime.range;
    return { name: `${runtime.kind}-${version}/${app}`, runtime, app, packages };
  }),
);

const onExpress = EXPRESS.flatMap((express) =>
  EXPRESS_SESSION.map((session) => ({
    name: `express-${express}/session-${session}`,
    app: "express",
    packages: { express, "express-session": session },
  })),
);

const onFastify = FASTIFY_SESSION.map(({ session, fastify, cookie }) => ({
  name: `fastify-${fastify}/session-${session}`,
  app: "fastify",
  packages: { fastify, "@fastify/cookie": cookie, "@fastify/session": session },
}));

const compilers = TYPESCRIPT.map((range) => ({
  name: `typescript-${range === NEWEST ? "newest" : range}`,
  typescript: range,
}));

/** A row without a runtime runs on the Node.js that runs the matrix. */
const ROWS = [...onRuntimes, ...onExpress, ...onFastify, ...compilers];

module.exports = { EXPRESS, EXPRESS_SESSION, FASTIFY_SESSION, NEWEST, NODE, ROWS, TYPESCRIPT };
