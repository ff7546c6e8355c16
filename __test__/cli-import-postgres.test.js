"use strict";

const assert = require("node:assert/strict");
const fs = require("node:fs");
const { after, afterEach, before, beforeEach, describe, it } = require("node:test");
const { Client } = require("pg");
const session = require("express-session");
const { finish } = require("./support/cli.js");
const { ImportBench, summary } = require("./support/import-bench.js");
const { describeImports } = require("./support/import-suite.js");
const { startCuttingProxy } = require("./support/cutting-proxy.js");
const { HOUR, connectSession, installPackages } = require("./support/old-stores.js");
const { assertStillLoggedIn, logIn } = require("./support/moved-app.js");
const { postgresMissing, startPostgres } = require("./support/postgres.js");

const IS_WINDOWS = process.platform === "win32";
const PACKAGE = ["--from", "connect-pg-simple"];
const PASSWORD = "s3cret/@:";
// The table of connect-pg-simple's table.sql.
const COLUMNS =
  '"sid" varchar NOT NULL COLLATE "default" PRIMARY KEY, "sess" json NOT NULL, "expire" timestamp(6) NOT NULL';

let bench;
beforeEach(() => {
  bench = new ImportBench();
});
afterEach(() => bench.cleanUp());

describe("native-store import --from connect-pg-simple, of its options,", () => {
  for (const [args, words, env] of [
    [[], /--from connect-pg-simple needs the <url> of its store, or NATIVE_STORE_FROM_URL/],
    [["-"], /--from connect-pg-simple needs the <url> of its store/],
    [["old.db"], /the URL of the old store must be such as postgres:\/\/user@127\.0\.0\.1:5432\/database$/m],
    [["redis://127.0.0.1"], /the URL of the old store must be such as postgres:/],
    [[], /NATIVE_STORE_FROM_URL must be such as postgres:/, { NATIVE_STORE_FROM_URL: "127.0.0.1:s3cret" }],
    [
      ["postgres://ann:s3cret@h/db"],
      /a password on the command line .+: NATIVE_STORE_FROM_URL takes the URL/,
    ],
    [["postgres://h/db?user=ann&password=s3cret"], /a password on the command line/],
    [["postgres://h/db", "--extension", "x"], /--extension goes with --from session-file-store/],
  ]) {
    it(`refuses ${["import", ...PACKAGE, ...args].join(" ")}, and makes nothing`, async () => {
      const said = await bench.refuses(["import", "--create", ...PACKAGE, ...args], words, { env });
      assert.doesNotMatch(said, /s3cret/);
      assert.deepEqual(fs.readdirSync(bench.directory), []);
    });
  }

  it("uses the app's driver, and names the package to install if there is none", async () => {
    const env = bench.hiding("pg");
    const args = ["import", "--create", ...PACKAGE, "postgres://127.0.0.1/db"];
    await bench.refuses(args, /takes the package pg, and there is none; npm install pg here$/m, { env });
    installPackages(bench.directory, { pg: 'throw new Error("of another Node.js\\n");' });
    await bench.refuses(args, /pg is there, but does not load: of another Node\.js; npm install pg here$/m, {
      env,
    });
    const own = "exports.Client = class { constructor() { throw new Error('the own one of the app'); } };";
    installPackages(bench.directory, { pg: own });
    await bench.refuses(args, /cannot read postgres:\/\/127\.0\.0\.1\/db: the own one of the app$/m, {
      code: 3,
    });
    assert.ok(!fs.existsSync(bench.storePath));
  });
});

describe("native-store import --from connect-pg-simple,", { skip: postgresMissing }, () => {
  let server;
  let client;
  before(async () => {
    server = await startPostgres({ passwords: { app: PASSWORD } });
    client = new Client(server.url);
    await client.connect();
    await client.query(`CREATE ROLE app LOGIN PASSWORD '${PASSWORD}'`);
    await client.query("GRANT pg_read_all_data TO app");
  });
  after(async () => {
    await client?.end();
    await server?.stop();
  });
  beforeEach(() => makeTable('"session"'));

  const getArgs = () => ["import", "--create", ...PACKAGE, server.url];
  const imports = (...more) => bench.imports([...getArgs(), ...more]);

  async function makeTable(name, columns = COLUMNS) {
    await client.query(`DROP TABLE IF EXISTS ${name}; CREATE TABLE ${name} (${columns})`);
  }

  /** In the form of connect-pg-simple. */
  async function insert(rows, table = '"session"') {
    const columns = rows.map(([sid]) => sid);
    const texts = rows.map(([, text]) => text);
    const ends = rows.map(([, , end = Date.now() + HOUR]) => end / 1000);
    await client.query(
      `INSERT INTO ${table} (sid, sess, expire)
        SELECT sid, sess, to_timestamp(expire) FROM unnest($1::text[], $2::json[], $3::float8[]) AS rows (sid, sess, expire)`,
      [columns, texts, ends],
    );
  }

  const endOf = ({ cookie }) =>
    cookie?.expires ? Math.ceil(Date.parse(cookie.expires) / 1000) * 1000 : undefined;

  describeImports("of what every package has to pass,", {
    getBench: () => bench,
    getArgs,
    fill: async (sessions) => {
      await makeTable('"session"');
      await insert(
        Object.entries(sessions).map(([sid, each]) => [sid, JSON.stringify(each), endOf(each ?? {})]),
      );
    },
    traceOf: async () => (await client.query('SELECT xmin, ctid, * FROM "session" ORDER BY sid')).rows,
    noun: "row",
    nameOfBad: /row bad-\w+/,
  });

  it("keeps users of an app with the package logged in", async () => {
    const store = new (require("connect-pg-simple")(session))({ conString: server.url });
    const browsers = await logIn(store);
    await store.close();
    assert.equal(await imports(), summary(browsers.length));
    await assertStillLoggedIn(browsers, bench);
  });

  it("imports sessions that the package wrote", async () => {
    await client.query('DROP TABLE "session"');
    const PgStore = require("connect-pg-simple")(session);
    const store = new PgStore({ conString: server.url, createTableIfMissing: true, ttl: 600 });
    const call = (method, ...args) =>
      new Promise((resolve, reject) => {
        store[method](...args, (error, result) => (error ? reject(error) : resolve(result)));
      });
    const given = connectSession({ name: "Zoë \ud800", list: [1, null] });
    await call("set", "a", given);
    await call("set", "endless", connectSession({ n: 1 }, { maxAge: null }));
    const touched = connectSession({ n: 2 });
    await call("set", "touched", touched);
    const later = new Date(Date.now() + 5 * HOUR);
    await call("touch", "touched", { cookie: { expires: later } });
    const read = await call("get", "a");
    await store.close();

    assert.equal(await imports(), summary(3));
    assert.equal(JSON.stringify(await bench.connectGet("a")), JSON.stringify(read));
    assert.deepEqual(read, given);
    const { expires } = await bench.stored("endless");
    assert.ok(Math.abs(Date.parse(expires) - Date.now() - 600_000) < 60_000, expires);
    assert.equal((await bench.connectGet("endless")).cookie.expires, null);
    const end = (await bench.connectGet("touched")).cookie.expires;
    assert.ok(Math.abs(Date.parse(end) - later) <= 1000, end);
  });

  it("skips expired sessions, and can be repeated", async () => {
    await insert([
      ["live", JSON.stringify(connectSession())],
      ["expired", JSON.stringify(connectSession()), Date.now() - 1],
      ["never", JSON.stringify(connectSession())],
    ]);
    await client.query("UPDATE session SET expire = 'infinity' WHERE sid = 'never'");
    const { code, stderr } = await bench.run(getArgs());
    assert.equal(code, 1);
    assert.match(stderr, /^1 session imported; skipped: 0 existing, 1 expired, 1 unreadable\n/);
    assert.match(stderr, /left out 1 row: 1 without an end time \(row never\)\n$/);
    await client.query("DELETE FROM session WHERE sid = 'never'");
    assert.equal(await imports(), summary(0, { existing: 1, expired: 1 }));
  });

  it("reads an expiry in the server's default time zone", async () => {
    await client.query("ALTER DATABASE postgres SET TimeZone = 'Pacific/Auckland'");
    try {
      const app = new Client(server.url);
      await app.connect();
      const end = Math.ceil(Date.now() / 1000) * 1000 + HOUR;
      await app.query("INSERT INTO session VALUES ('a', $1, to_timestamp($2))", [
        connectSession({}, { maxAge: null }),
        end / 1000,
      ]);
      await app.end();
      assert.equal(await bench.imports(getArgs(), { env: { TZ: "America/Lima" } }), summary(1));
      assert.equal((await bench.stored("a")).expires, new Date(end).toISOString());
    } finally {
      await client.query("ALTER DATABASE postgres RESET TimeZone");
    }
  });

  it("reads every row once, whatever the collation of the ids", async () => {
    const odd = ["a", "A", "é", "-", "_", "a b", "a'b", '"', "%", "\\", "z".repeat(250), "😀"];
    const many = Array.from({ length: 250 }, (_, at) => [
      `${at % 2 ? "s" : "S"}-${at}`,
      JSON.stringify(connectSession()),
    ]);
    await insert([...odd.map((sid) => [sid, JSON.stringify(connectSession())]), ...many]);
    assert.equal(await imports(), summary(odd.length + many.length));
  });

  it("reads another table of another schema, with other column types", async () => {
    await client.query('DROP SCHEMA IF EXISTS "my ""app" CASCADE; CREATE SCHEMA "my ""app"');
    const table = '"my ""app"."user sessions"';
    await makeTable(
      table,
      "sid text PRIMARY KEY, sess jsonb NOT NULL, expire timestamptz NOT NULL, more int",
    );
    await insert([["a", JSON.stringify(connectSession({ n: 1 }))]], table);
    const args = ["--schema", 'my "app', "--table", "user sessions"];
    assert.equal(await imports(...args), summary(1));
    assert.equal((await bench.connectGet("a")).n, 1);
    await client.query('DROP TABLE "session"');
    await bench.refuses(
      getArgs(),
      /has no table "session"; what may be meant is --schema my "app --table user sessions$/m,
    );
    await makeTable('"session"', "id text, data json");
    await bench.refuses(
      getArgs(),
      /the table "session" lacks a column of connect-pg-simple: sid, sess or expire/,
    );
  });

  it("takes a URL with a password from the environment, and shows it nowhere", async () => {
    await insert([["a", JSON.stringify(connectSession())]]);
    const url = (password) => server.url.replace("test@", `app:${encodeURIComponent(password)}@`);
    const args = ["import", "--create", ...PACKAGE];
    assert.equal(await bench.imports(args, { env: { NATIVE_STORE_FROM_URL: url(PASSWORD) } }), summary(1));
    const env = { NATIVE_STORE_FROM_URL: url("wr0ng") };
    const said = await bench.refuses(
      args,
      /cannot read postgres:\/\/127\.0\.0\.1:\d+\/postgres: password auth/,
      {
        code: 3,
        env,
      },
    );
    assert.doesNotMatch(said, /wr0ng/);
    // Otherwise the driver finds the password in its own ways.
    const named = [...args, server.url.replace("test@", "app@")];
    assert.equal(await bench.imports(named, { env: { PGPASSWORD: PASSWORD } }), summary(0, { existing: 1 }));
  });

  it("reports why it cannot read", async () => {
    const nobody = server.url.replace(`:${server.port}`, ":1");
    await bench.refuses(["import", "--create", ...PACKAGE, nobody], /cannot read .+: connect ECONNREFUSED/, {
      code: 3,
    });
    const none = server.url.replace("/postgres", "/none").replace("postgres:", "postgresql:");
    await bench.refuses(["import", "--create", ...PACKAGE, none], /database "none" does not exist/, {
      code: 3,
    });
    assert.ok(!fs.existsSync(bench.storePath));
  });

  it("reports what it had imported when the connection is lost, and completes when it is run again", async () => {
    const text = JSON.stringify(connectSession());
    await insert(Array.from({ length: 5000 }, (_, at) => [`s${at}`, text]));
    const proxy = await startCuttingProxy(server.port, 500_000);
    const url = server.url.replace(`:${server.port}`, `:${proxy.port}`);
    const { code, stderr } = await bench.run(["import", "--create", ...PACKAGE, url]);
    proxy.stop();
    assert.equal(code, 3);
    const [, count] =
      /^native-store: cannot read .+: Connection terminated .+; stopped after ([\d,]+) sessions imported; /.exec(
        stderr,
      ) ?? [];
    const had = Number(count?.replaceAll(",", ""));
    assert.ok(had > 0 && had < 5000, stderr);
    assert.match(
      await imports(),
      new RegExp(`^${(5000 - had).toLocaleString("en")} sessions imported; skipped: ${count} existing`),
    );
  });

  it("stops at a signal while the server does not answer", { skip: IS_WINDOWS }, async () => {
    await insert([["a", JSON.stringify(connectSession())]]);
    await client.query("BEGIN; LOCK TABLE session IN ACCESS EXCLUSIVE MODE");
    const child = bench.start(getArgs());
    const ending = finish(child);
    const other = new Client(server.url);
    await other.connect();
    while (
      (await other.query("SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock'")).rowCount === 0
    );
    await other.end();
    child.kill("SIGINT");
    const { signal } = await ending;
    assert.equal(signal, "SIGINT");
    await client.query("ROLLBACK");
  });
});
