"use strict";

const assert = require("node:assert/strict");
const { once } = require("node:events");
const fs = require("node:fs");
const path = require("node:path");
const { createInterface } = require("node:readline");
const { setTimeout: sleep } = require("node:timers/promises");
const { afterEach, beforeEach, describe, it } = require("node:test");
const { version } = require("../package.json");
const { Bench, asLines, finish, hasTerminals, later, linesOf, session } = require("./support/cli.js");

const COMMANDS = ["stats", "list", "revoke", "verify", "backup", "export", "import", "discard-log"];
const IS_WINDOWS = process.platform === "win32";
const byId = (one, other) => (one.sessionId < other.sessionId ? -1 : 1);
const parsed = (text) => linesOf(text).map((line) => JSON.parse(line));
const byIdOfEntry = (one, other) => byId(one.session, other.session);
const exportedSessions = (text) =>
  parsed(text)
    .map(({ session }) => session)
    .sort(byId);

/** Enough sessions for a run to take a while, and for more output than a pipe holds. */
const many = (count) =>
  Array.from({ length: count }, (_, at) => session(`s${at}`, `u${at}`, { note: "x".repeat(1000) }));

let bench;
beforeEach(() => {
  bench = new Bench();
});
afterEach(() => bench.cleanUp());

/** Runs a command, which must succeed and print only its answer. */
async function answerOf(...args) {
  const { code, stdout, stderr } = await bench.run(args);
  assert.deepEqual({ code, stderr }, { code: 0, stderr: "" });
  return stdout;
}

/** Runs a command, which must fail with a one-line reason. */
async function fails(args, exitCode, words, options) {
  const { code, stdout, stderr } = await bench.run(args, options);
  assert.match(stderr, /^native-store: [^\n]+\n$/);
  assert.match(stderr, words);
  assert.equal(code, exitCode, stderr);
  assert.equal(stdout, "");
}

describe("native-store", () => {
  it("prints help, also for each command", async () => {
    const general = await answerOf("--help");
    for (const command of COMMANDS) {
      assert.match(general, new RegExp(`^  ${command} `, "m"));
      const help = await answerOf(command, "--help");
      assert.match(help, new RegExp(`^native-store ${command}: `));
      assert.match(help, /--path <dir>.+\.\/sessions$/m);
      assert.match(help, /^Exit codes:/m);
      assert.equal(help, await answerOf("-h", command));
      assert.equal(help, await answerOf("help", command));
    }
  });

  it("accepts other ways to ask for help", async () => {
    const general = await answerOf("--help");
    for (const args of [["help"], ["-h"]]) assert.equal(await answerOf(...args), general);
    await fails(["help", "lsit"], 2, /unknown command "lsit": did you mean list\?/);
  });

  it("warns about ids in the help of commands that print them", async () => {
    for (const command of ["list", "export"]) {
      assert.match((await answerOf(command, "--help")).replaceAll("\n", " "), /as good as (a )?password/);
    }
  });

  it("prints its version", async () => {
    for (const option of ["--version", "-v"]) assert.equal(await answerOf(option), `${version}\n`);
  });

  it("prints its help as an error without a command", async () => {
    const { code, stdout, stderr } = await bench.run([]);
    assert.deepEqual([code, stdout], [2, ""]);
    assert.match(stderr, /^Usage: native-store <command>/m);
  });

  for (const [args, words] of [
    [["lsit"], /unknown command "lsit": did you mean list\?/],
    [["show"], /unknown command "show": the commands are stats, list, /],
    [["constructor"], /unknown command "constructor"/],
    [["stats", "--jason"], /unknown option "--jason" of stats: did you mean --json\?/],
    [["clear"], /no command clear: revoke --all ends all sessions/],
    [
      ["stats", "--secret", "x"],
      /--secret is not supported, because every user .+: use --secret-file or NATIVE_STORE_SECRET/,
    ],
    [
      ["stats", "--password=x"],
      /--password is not supported, because every user .+: use NATIVE_STORE_REDIS_PASSWORD/,
    ],
    [["stats", "--user", "ann"], /unknown option "--user" of stats: the options are --json, --path/],
    [["stats", "-j"], /unknown option "-j"/],
    [["stats", "--__proto__"], /unknown option "--__proto__"/],
    [["stats", "now"], /stats takes no argument "now"/],
    [["backup"], /backup needs a <destination>/],
    [["backup", "a", "b"], /backup takes no argument "b"/],
    [["stats", "--json=yes"], /--json takes no value/],
    [["stats", "--path"], /--path needs a value/],
    [["stats", "--path="], /--path must not be empty/],
    [["list", "--user", "--json"], /--user needs a value; .+ --user=--json/],
    [["list", "--user", "a", "--user", "b"], /--user is given twice/],
    [["list", "--user", "a", "--user-json", "1"], /exclude each other/],
    [["list", "--user-json", "ann"], /--user-json must be JSON/],
    [["list", "--user-json", "null"], /--user-json must not be null/],
    [["list", "--limit", "0"], /--limit must be a whole number from 1/],
    [["list", "--limit", "1e3"], /--limit must be/],
    [["stats", "--redis", "redis://h", "--allow-network-fs"], /--allow-network-fs is for a FileStore/],
    [["list", "--limit", "1", "--watch"], /--watch and --limit exclude each other/],
    [["revoke"], /revoke needs one of --user, --user-json, --id and --all/],
    [["revoke", "--user", "a", "--all"], /revoke needs one of/],
    [["revoke", "--user", "a", "--yes"], /--yes goes with --all/],
    [["revoke", "--all", "--except", "b"], /--except goes with a user/],
    [["revoke", "--user", "a", "--id", "b"], /revoke needs one of/],
    [["revoke", "--id", "a", "--except", "b"], /--except goes with a user/],
    [["revoke", "--id", "a", "--before", "1h"], /--before goes with a user or --all/],
    [["revoke", "--before", "1h"], /revoke needs one of/],
    ...[
      "",
      "5m",
      "0d",
      "1.5h",
      "1 h",
      "yesterday",
      "1700000000000",
      "2026-11-28T10:00",
      "2026-13-01",
      "2026-02-31",
      "2025-02-29T10:00Z",
      "2026-04-31T23:00+05:00",
      "999999999d",
    ].map((text) => [
      ["revoke", "--all", `--before=${text}`],
      /--before must be how long ago, such as .+; got "/,
    ]),
    [["revoke", "--all", "--before", "2999-01-01"], /--before 2999-01-01T00:00:00\.000Z is in the future/],
    [["stats", "--secret-file", "none"], /cannot read the secret file none: no such file/],
    [["import", "none"], /cannot read none: no such file/],
    [["import", "."], /cannot read \.: it is a directory/],
  ]) {
    it(`refuses ${["native-store", ...args].join(" ")}`, async () => {
      await bench.fill([]);
      await fails(args, 2, words);
    });
  }

  it("does not create a store", async () => {
    fs.mkdirSync(bench.in("empty"));
    for (const command of ["stats", "list", "verify", "export", "import"]) {
      await fails([command], 2, /no store at \.\/sessions \(from the default\)/);
      await fails([command, "--path", "empty"], 2, /no store at empty \(from --path\)/);
    }
    await fails(["revoke", "--user", "ann"], 2, /no store at/);
    await fails(["backup", "copy"], 2, /no store at/);
    await fails(["import"], 2, /import --create makes one/);
    assert.deepEqual(fs.readdirSync(bench.directory), ["empty"]);
    assert.deepEqual(fs.readdirSync(bench.in("empty")), []);
  });

  it("finds the store by --path, then NATIVE_STORE_PATH, then ./sessions", async () => {
    await bench.fill([session("default")]);
    await bench.fill([session("variable")], { path: bench.in("two") });
    await bench.fill([session("option")], { path: bench.in("three") });
    const env = { NATIVE_STORE_PATH: "two" };
    for (const [id, args, options] of [
      ["default", []],
      ["default", [], { env: { NATIVE_STORE_PATH: "" } }],
      ["variable", [], { env }],
      ["option", ["--path", "three"], { env }],
    ]) {
      const { stdout } = await bench.run([...args, "list"], options);
      assert.match(stdout, new RegExp(`^${id}\t`));
    }
    await fails(["stats"], 2, /no store at four \(from NATIVE_STORE_PATH\)/, {
      env: { NATIVE_STORE_PATH: "four" },
    });
  });

  it("prints the error of the store", async () => {
    fs.mkdirSync(bench.storePath);
    fs.writeFileSync(bench.in("sessions", "data.mdb"), "no store at all".repeat(1000));
    await fails(["stats"], 3, /data\.mdb.+ \(ERR_STORE_\w+\)$/m);
  });

  it("changes nothing in commands that only read", async () => {
    await bench.fill([session("a"), session("old", "ann", { expires: later(-1) })]);
    const before = bench.digest();
    for (const args of [
      ["stats"],
      ["list"],
      ["list", "--user", "ann"],
      ["verify"],
      ["backup", "b"],
      ["export"],
    ]) {
      const { code, stderr } = await bench.run(args);
      assert.equal(code, 0, stderr);
    }
    assert.equal(bench.digest(), before);
  });
});

describe("native-store, when it opens a file,", () => {
  /** Runs a command with a fake FileStore that prints its options. */
  async function optionsOf(args) {
    const hook = bench.in("hook.js");
    fs.writeFileSync(
      hook,
      `require(${JSON.stringify(path.join(__dirname, ".."))}).FileStore = class {
         constructor({ readOnly, allowNetworkFileSystem }) {
           console.log(JSON.stringify({ readOnly, allowNetworkFileSystem }));
           process.exit();
         }
       };`,
    );
    const { stdout } = await bench.run(args, { env: { NODE_OPTIONS: `--require=${hook}` } });
    return JSON.parse(stdout);
  }

  it("opens it read-only if possible, and on a network only with the option", async () => {
    await bench.fill([]);
    for (const [args, readOnly] of [
      [["stats"], true],
      [["list"], true],
      [["verify"], true],
      [["export"], true],
      [["backup", "copy"], true],
      [["revoke", "--id", "a"], false],
      [["import"], false],
    ]) {
      assert.deepEqual(await optionsOf(args), { readOnly, allowNetworkFileSystem: false }, args[0]);
      const { allowNetworkFileSystem } = await optionsOf([...args, "--allow-network-fs"]);
      assert.equal(allowNetworkFileSystem, true);
    }
  });
});

describe("native-store stats", () => {
  it("counts the live and the expired sessions", async () => {
    await bench.fill([session("a"), session("b"), session("old", "ann", { expires: later(-1) })]);
    const counts = JSON.parse(await answerOf("stats", "--json"));
    const { path: where, bytes, fileBytes, ...rest } = counts;
    assert.deepEqual(rest, { sessions: 3, live: 2, expired: 1 });
    assert.equal(fs.realpathSync(where), fs.realpathSync(bench.storePath));
    assert.equal(fileBytes, fs.statSync(bench.in("sessions", "data.mdb")).size);
    assert.ok(bytes > 0 && bytes <= fileBytes);
  });

  it("shows them as a table", async () => {
    await bench.fill([session("a")]);
    const table = await answerOf("stats");
    assert.match(table, /^store {5}.+sessions \(from the default\)$/m);
    assert.match(table, /^sessions {2}1 live, 0 expired and not yet swept$/m);
    assert.match(table, /^file {6}\d+\.\d KiB$/m);
  });
});

describe("native-store list", () => {
  it("shows the id, the user, the end and the time left of each live session", async () => {
    const expires = later(90 * 60_000 + 30_000);
    await bench.fill([session("a", "ann", { expires }), session("old", "ann", { expires: later(-1) })]);
    assert.equal(await answerOf("list"), `a\tann\t${expires}\t1 h 30 min left\n`);
  });

  it("shows a user in the form of the option that finds it", async () => {
    const users = ["ann", "42", 42, null, "-", "", "true", { id: 1 }, "Zoë Müller", '"', " x"];
    await bench.fill(users.map((userId, at) => session(`s${at}`, userId)));
    const shown = linesOf(await answerOf("list")).map((line) => line.split("\t"));
    const byPosition = shown.sort((one, other) => one[0].slice(1) - other[0].slice(1));
    assert.deepEqual(
      byPosition.map(([, user]) => user),
      ["ann", '"42"', "42", "-", '"-"', '""', '"true"', '{"id":1}', "Zoë Müller", '"\\""', '" x"'],
    );
    for (const [at, userId] of users.entries()) {
      if (userId === null) continue;
      const user = byPosition[at][1];
      const isPlain = user === userId;
      assert.equal(linesOf(await answerOf("list", isPlain ? "--user" : "--user-json", user)).length, 1);
    }
  });

  it("cuts a long user", async () => {
    await bench.fill([session("a", "😀".repeat(50_000))]);
    assert.match(await answerOf("list"), /^a\t(😀){60}…\t/);
    assert.equal(JSON.parse(await answerOf("list", "--json")).userId.length, 100_000);
  });

  it("prints each whole session as JSON", async () => {
    const sessions = [session("a", { id: 1 }, { cart: [1, { x: null }] }), session("b", null)];
    await bench.fill(sessions);
    assert.deepEqual(parsed(await answerOf("list", "--json")).sort(byId), sessions);
  });

  it("distinguishes a user given as text from one given as JSON", async () => {
    await bench.fill([
      session("text", "42"),
      session("number", 42),
      session("dash", "-x"),
      session("none", ""),
    ]);
    for (const [args, id] of [
      [["--user", "42"], "text"],
      [["--user-json", "42"], "number"],
      [["--user-json", '"42"'], "text"],
      [["--user=-x"], "dash"],
      [["--user", ""], "none"],
    ]) {
      assert.match(await answerOf("list", ...args), new RegExp(`^${id}\t[^\n]+\n$`));
    }
    assert.equal(await answerOf("list", "--user", "nobody"), "");
  });

  it("stops at the limit", async () => {
    await bench.fill(many(10));
    assert.equal(linesOf(await answerOf("list", "--limit", "3")).length, 3);
    assert.equal(linesOf(await answerOf("list", "--limit=30", "--json")).length, 10);
  });

  /** Damages the record of the user with this text. */
  function damage(text) {
    const file = bench.in("sessions", "data.mdb");
    const bytes = fs.readFileSync(file);
    for (let at = bytes.indexOf(text); at >= 0; at = bytes.indexOf(text, at + 1)) {
      bytes.fill(0xff, at - 2, at + text.length);
    }
    fs.writeFileSync(file, bytes);
  }

  it("leaves out unreadable sessions, and reports them", async () => {
    await bench.fill(["a", "b", "c"].map((id) => session(id, `user of ${id}`)));
    damage("user of b");
    for (const args of [["list"], ["export", "--quiet"], ["verify"]]) {
      const { code, stdout, stderr } = await bench.run(args);
      assert.equal(code, 1);
      if (args[0] === "verify") continue;
      assert.equal(linesOf(stdout).length, 2);
      assert.match(stderr, /^native-store: left out 1 session that could not be read: [^\n]+\n$/);
    }
    assert.equal(await answerOf("revoke", "--id", "b"), "1 session ended\n");
    assert.equal(linesOf(await answerOf("list")).length, 2);
  });

  it("finds and ends the other sessions of a user with an unreadable one", async () => {
    const user = { name: "ann", of: [1] };
    const asJson = ["--user-json", '{"of":[1],"name":"ann"}'];
    await bench.fill([
      session("a", user),
      session("b", user, { note: "to be damaged" }),
      session("c", user),
      session("d", { ...user, of: [2] }),
    ]);
    damage("to be damaged");
    const leftOut = /^native-store: left out 1 session that could not be read: [^\n]+\n$/;
    const listed = await bench.run(["list", ...asJson]);
    assert.match(listed.stderr, leftOut);
    assert.deepEqual(
      [
        listed.code,
        linesOf(listed.stdout)
          .map(([id]) => id)
          .sort(),
      ],
      [1, ["a", "c"]],
    );
    const ended = await bench.run(["revoke", ...asJson, "--before", new Date().toISOString()]);
    assert.match(ended.stderr, leftOut);
    assert.deepEqual([ended.code, ended.stdout], [1, "2 sessions ended\n"]);
    assert.equal(await answerOf("revoke", ...asJson), "1 session ended\n");
    assert.match(await answerOf("list"), /^d\t[^\n]+\n$/);
  });

  it("ends quietly when its reader closes the pipe", async () => {
    await bench.fill(many(5000));
    for (const args of [["list", "--json"], ["export"]]) {
      const child = bench.start([...args, "--quiet"]);
      child.stdout.once("data", () => child.stdout.destroy());
      const { code, stderr } = await finish(child);
      assert.deepEqual([code, stderr], [0, ""]);
    }
  });
});

describe("native-store, if the user's id has another type,", () => {
  for (const command of ["list", "revoke"]) {
    it(`prints a note: ${command}`, async () => {
      await bench.fill([session("a", 42), session("b", 42), session("c", "7")]);
      for (const [args, hint] of [
        [["--user", "42"], "no session of the text 42, but 2 sessions of the number: use --user-json\n"],
        [["--user-json", "7"], "no session of the number 7, but 1 session of the text: use --user\n"],
        [["--user", "nobody"], ""],
        [["--user-json", "41"], ""],
        [["--user-json", '"ann"'], ""],
      ]) {
        const { stdout, stderr } = await bench.run([command, ...args]);
        assert.deepEqual([stdout, stderr], [command === "list" ? "" : "0 sessions ended\n", hint]);
      }
    });
  }
});

describe("native-store revoke, if the user has sessions that stay,", () => {
  it("does not print that note", async () => {
    await bench.fill([session("text", "42"), session("number", 42)]);
    for (const which of [
      ["--except", "text"],
      ["--before", "1h"],
    ]) {
      const { stdout, stderr } = await bench.run(["revoke", "--user", "42", ...which]);
      assert.deepEqual([stdout, stderr], ["0 sessions ended\n", ""]);
    }
  });
});

describe("native-store list --watch", () => {
  it("prints new and ended sessions until a signal ends it", async () => {
    const store = bench.open();
    await store.create(session("a"));
    const child = bench.start(["list", "--watch"]);
    const ended = finish(child);
    const lines = createInterface(child.stdout)[Symbol.asyncIterator]();
    const next = async () => (await lines.next()).value;
    const first = await next();
    assert.match(first, /^\+\ta\tann\t/);
    await store.create(session("b", "ben"));
    assert.match(await next(), /^\+\tb\tben\t/);
    await store.delete("a");
    assert.equal(await next(), first.replace("+", "-"));
    child.kill("SIGINT");
    assert.equal((await ended).signal, "SIGINT");
  });

  it("watches one user, as JSON", async () => {
    const store = bench.open();
    await store.create(session("a"));
    const child = bench.start(["list", "--watch", "--json", "--user", "ben"]);
    const ended = finish(child);
    await store.create(session("b", "ben"));
    const { value } = await createInterface(child.stdout)[Symbol.asyncIterator]().next();
    assert.equal(JSON.parse(value.slice("+\t".length)).sessionId, "b");
    child.kill();
    await ended;
  });
});

describe("native-store revoke --all", () => {
  const ALL = [
    session("a"),
    session("b", 42),
    session("c", null),
    session("old", "ben", { expires: later(-1) }),
  ];

  it("ends every session with --yes, and counts the live ones", async () => {
    await bench.fill(ALL);
    assert.equal(await answerOf("revoke", "--all", "--yes"), "3 sessions ended\n");
    assert.equal(await answerOf("list"), "");
    assert.equal((await bench.run(["revoke", "--all", "--yes"])).code, 1);
  });

  it("changes nothing where there is no terminal to ask at", async () => {
    await bench.fill(ALL);
    await fails(["revoke", "--all"], 2, /nothing was changed: .+ --yes was not given/);
    assert.equal(linesOf(await answerOf("list")).length, 3);
  });

  it("asks at a terminal", { skip: !hasTerminals() && "needs the script of util-linux" }, async () => {
    await bench.fill(ALL);
    const no = bench.runInTerminal(["revoke", "--all"], {}, "n\n");
    assert.match(no.screen, /End 3 sessions, of all users\? \[y\/N\]/);
    assert.deepEqual([no.code, linesOf(await answerOf("list")).length], [1, 3]);
    assert.equal(bench.runInTerminal(["revoke", "--all"], {}, "y\n").code, 0);
    assert.equal(await answerOf("list"), "");
  });
});

describe("native-store revoke --before", () => {
  const DAY = 86_400_000;
  const ago = (days) => new Date(Date.now() - days * DAY).toISOString();

  /** A store with sessions of these users that were created so many days ago. */
  async function fillAged(ages) {
    await bench.fill([]);
    const lines = Object.entries(ages).map(([name, [days, user]]) => ({
      createdAt: ago(days),
      session: session(name, user),
    }));
    const { code, stderr } = await bench.run(["import"], { input: asLines(lines) });
    assert.equal(code, 0, stderr);
  }

  const AGED = { a: [10, "ann"], b: [5, "ann"], c: [10, "ben"], d: [0, "ben"], e: [10, null] };
  const left = async () => parsed(await answerOf("list", "--json")).map(({ sessionId }) => sessionId);

  it("ends the sessions of a user that were created before a time, except one", async () => {
    await fillAged({ ...AGED, f: [20, "ann"] });
    assert.equal(
      await answerOf("revoke", "--user", "ann", "--before", "7d", "--except", "f"),
      "1 session ended\n",
    );
    assert.deepEqual((await left()).sort(), ["b", "c", "d", "e", "f"]);
    const again = await bench.run(["revoke", "--user", "ben", "--before", ago(12)]);
    assert.deepEqual([again.code, again.stdout], [1, "0 sessions ended\n"]);
  });

  for (const [what, text] of [
    ["how long ago", "96h"],
    ["a time", ago(4)],
    ["a date", ago(4).slice(0, 10)],
  ]) {
    it(`ends those of all users by ${what} with --yes`, async () => {
      await fillAged(AGED);
      assert.equal(await answerOf("revoke", "--all", "--before", text, "--yes"), "4 sessions ended\n");
      assert.deepEqual(await left(), ["d"]);
      assert.equal((await bench.run(["revoke", "--all", "--before", text, "--yes"])).code, 1);
    });
  }

  it("ends no session with 1970-01-01, which is time 0", async () => {
    await fillAged(AGED);
    for (const which of [
      ["--user", "ann"],
      ["--all", "--yes"],
    ]) {
      const { code, stdout } = await bench.run(["revoke", ...which, "--before", "1970-01-01"]);
      assert.deepEqual([code, stdout], [1, "0 sessions ended\n"]);
    }
    assert.equal((await left()).length, 5);
  });

  it("changes nothing where there is no terminal to ask at", async () => {
    await fillAged(AGED);
    await fails(["revoke", "--all", "--before", "1d"], 2, /nothing was changed: .+ --yes was not given/);
    assert.equal((await left()).length, 5);
  });

  it("asks at a terminal, and shows the parsed time", {
    skip: !hasTerminals() && "needs script",
  }, async () => {
    await fillAged(AGED);
    const no = bench.runInTerminal(["revoke", "--all", "--before", "2026-01-01"], {}, "n\n");
    assert.match(
      no.screen,
      /End 0 sessions created before 2026-01-01T00:00:00\.000Z, of all users\? \[y\/N\]/,
    );
    const yes = bench.runInTerminal(["revoke", "--all", "--before", "7d"], {}, "y\n");
    assert.match(yes.screen, /End 3 sessions created before /);
    assert.equal(yes.code, 0);
    assert.deepEqual(await left(), ["b", "d"]);
  });

  it("ends more sessions than one batch", async () => {
    await fillAged(Object.fromEntries(Array.from({ length: 700 }, (_, at) => [`s${at}`, [3, "ann"]])));
    assert.equal(await answerOf("revoke", "--all", "--before", "1d", "--yes"), "700 sessions ended\n");
    assert.deepEqual(await left(), []);
  });
});

describe("native-store revoke", () => {
  it("ends the sessions of a user, and prints how many", async () => {
    await bench.fill([session("a"), session("b"), session("c", "ben"), session("d", 42)]);
    assert.equal(await answerOf("revoke", "--user", "ann"), "2 sessions ended\n");
    assert.equal(await answerOf("revoke", "--user-json", "42"), "1 session ended\n");
    assert.match(await answerOf("list"), /^c\t[^\n]+\n$/);
  });

  it("keeps the session of --except", async () => {
    await bench.fill([session("a"), session("b"), session("c")]);
    assert.equal(await answerOf("revoke", "--user", "ann", "--except", "b"), "2 sessions ended\n");
    assert.match(await answerOf("list"), /^b\t[^\n]+\n$/);
  });

  it("ends a session by its id", async () => {
    await bench.fill([session("a"), session("-b")]);
    assert.equal(await answerOf("revoke", "--id=-b"), "1 session ended\n");
    assert.match(await answerOf("list"), /^a\t[^\n]+\n$/);
  });

  it("returns exit code 1 if there was no session", async () => {
    await bench.fill([session("a"), session("old", "ben", { expires: later(-1) })]);
    for (const args of [
      ["--user", "ben"],
      ["--user-json", "1"],
      ["--id", "old"],
      ["--id", "nobody"],
    ]) {
      const { code, stdout } = await bench.run(["revoke", ...args]);
      assert.deepEqual([code, stdout], [1, "0 sessions ended\n"]);
    }
    assert.equal(linesOf(await answerOf("list")).length, 1);
  });

  it("refuses an invalid id for --except", async () => {
    await bench.fill([]);
    const tooLong = "x".repeat(257);
    await fails(
      ["revoke", "--user", "ann", "--except", tooLong],
      3,
      /except must be the id .+ \(ERR_INVALID_OPTION\)/,
    );
    await fails(["revoke", "--user", "ann", "--except", ""], 3, /ERR_INVALID_OPTION/);
  });
});

describe("native-store verify", () => {
  it("finds a store sound", async () => {
    await bench.fill([session("a"), session("old", "ann", { expires: later(-1) })]);
    assert.match(await answerOf("verify"), /^sound: \d sessions? \(1 expired\), \d+ pages\n$/);
    const { ok, unreadable, problems } = JSON.parse(await answerOf("verify", "--json"));
    assert.deepEqual([ok, unreadable, problems], [true, 0, []]);
  });

  it("lists the problems of a damaged store", async () => {
    await bench.fill(many(2000));
    const file = bench.in("sessions", "data.mdb");
    const bytes = fs.readFileSync(file);
    // The sessions are most of the file, its trunk is not in this part.
    bytes.fill(0xff, bytes.length >> 2, (bytes.length >> 2) + 40_000);
    fs.writeFileSync(file, bytes);
    const { code, stdout, stderr } = await bench.run(["verify"]);
    assert.equal(code, 1, stderr);
    const lines = linesOf(stdout);
    assert.ok(lines.length > 1, stdout);
    assert.match(lines.at(-1), /^damaged: [\d,]+ sessions? /);
    const json = await bench.run(["verify", "--json"]);
    assert.equal(json.code, 1);
    assert.equal(JSON.parse(json.stdout).ok, false);
  });
});

describe("native-store backup", () => {
  it("makes a new store with the same sessions", async () => {
    await bench.fill([session("a", 42, { cart: [1] }), session("b", null)]);
    const { code, stdout, stderr } = await bench.run(["backup", "copy"]);
    assert.deepEqual([code, stdout], [0, ""]);
    assert.match(stderr, /^backed up to copy: .+ KiB\n$/);
    const [original, copy] = [
      await answerOf("export", "--quiet"),
      await answerOf("export", "--quiet", "--path", "copy"),
    ];
    assert.deepEqual(parsed(copy).sort(byIdOfEntry), parsed(original).sort(byIdOfEntry));
    assert.deepEqual(fs.readdirSync(bench.directory).sort(), ["copy", "sessions"]);
    if (!IS_WINDOWS) assert.equal(fs.statSync(bench.in("copy")).mode & 0o777, 0o700);
  });

  it("makes a smaller file", async () => {
    const store = bench.open();
    await Promise.all(many(2000).map((each) => store.create(each)));
    await store.clear();
    assert.equal(await answerOf("backup", "copy", "--quiet"), "");
    const [before, after] = ["sessions", "copy"].map((name) => fs.statSync(bench.in(name, "data.mdb")).size);
    assert.ok(after < before / 4, `${before} bytes became ${after}`);
  });

  it("overwrites nothing, and leaves no incomplete copy behind", async () => {
    await bench.fill([session("a")]);
    fs.mkdirSync(bench.in("there"));
    await fails(["backup", "there"], 2, /there already exists/);
    await fails(["backup", "sessions"], 2, /already exists/);
    fs.writeFileSync(bench.in("file"), "");
    await fails(["backup", "file/copy"], 3, /file/);
    assert.deepEqual(fs.readdirSync(bench.directory).sort(), ["file", "sessions", "there"]);
  });
});

describe("native-store export", () => {
  it("writes the live sessions to standard output", async () => {
    const sessions = [session("a", 42, { cart: [] }), session("b")];
    await bench.fill([...sessions, session("old", "ann", { expires: later(-1) })]);
    for (const args of [[], ["-"]]) {
      const { code, stdout, stderr } = await bench.run(["export", ...args]);
      assert.deepEqual([code, stderr], [0, "2 sessions exported\n"]);
      assert.deepEqual(exportedSessions(stdout), sessions);
    }
  });

  it("writes a file that only its owner can read", async () => {
    await bench.fill([session("a")]);
    const { code, stdout, stderr } = await bench.run(["export", "all.jsonl"]);
    assert.deepEqual([code, stdout, stderr], [0, "", "1 session exported to all.jsonl\n"]);
    assert.equal(exportedSessions(fs.readFileSync(bench.in("all.jsonl"), "utf8"))[0].sessionId, "a");
    if (!IS_WINDOWS) assert.equal(fs.statSync(bench.in("all.jsonl")).mode & 0o777, 0o600);
    assert.deepEqual(fs.readdirSync(bench.directory).sort(), ["all.jsonl", "sessions"]);
  });

  it("replaces only regular files, and only with --force", async () => {
    await bench.fill([session("a")]);
    fs.writeFileSync(bench.in("old"), "old", { mode: 0o644 });
    await fails(["export", "old"], 2, /old already exists: --force replaces it/);
    assert.equal(fs.readFileSync(bench.in("old"), "utf8"), "old");
    await answerOf("export", "old", "--force", "--quiet");
    assert.equal(parsed(fs.readFileSync(bench.in("old"), "utf8")).length, 1);
    if (!IS_WINDOWS) assert.equal(fs.statSync(bench.in("old")).mode & 0o777, 0o600);
    await fails(["export", "sessions", "--force"], 2, /sessions is not a regular file/);
    await fails(["export", "none/file"], 2, /cannot write none\/file: no such file or directory/);
    assert.deepEqual(fs.readdirSync(bench.directory).sort(), ["old", "sessions"]);
  });
});

describe("native-store import", () => {
  it("creates a store from an export", async () => {
    const sessions = [
      session("a", 42, { cart: [1], expires: Date.now() + 1e9 }),
      session("b\u2028\u0085\n", "\ud800"),
      session("c", null),
    ];
    await bench.fill(sessions);
    const exported = await answerOf("export", "--quiet");
    const { code, stdout, stderr } = await bench.run(["import", "--create", "--path", "new"], {
      input: exported,
    });
    assert.deepEqual([code, stdout], [0, ""]);
    assert.equal(stderr, "3 sessions imported; skipped: 0 existing, 0 expired\n");
    const imported = await answerOf("export", "--quiet", "--path", "new");
    assert.deepEqual(parsed(imported).sort(byIdOfEntry), parsed(exported).sort(byIdOfEntry));
    assert.deepEqual(exportedSessions(imported), sessions);
  });

  it("keeps creation times, and treats a session without one as new", async () => {
    await bench.fill([]);
    const began = "2026-01-02T03:04:05.678Z";
    const connect = session("of ConnectStore", "ann", {
      session: { cookie: {} },
      createdAt: "the app's own",
    });
    const lines = [
      { createdAt: began, session: session("dated") },
      { createdAt: null, session: session("undated") },
      { createdAt: later(), session: session("yet to come") },
      session("of an older export"),
      connect,
      { createdAt: began, session: { ...connect, sessionId: "both" } },
    ];
    const before = Date.now();
    const { code, stderr } = await bench.run(["import"], { input: asLines(lines) });
    assert.deepEqual([code, stderr], [0, "6 sessions imported; skipped: 0 existing, 0 expired\n"]);
    const entries = parsed(await answerOf("export", "--quiet"));
    const times = Object.fromEntries(entries.map((entry) => [entry.session.sessionId, entry.createdAt]));
    assert.deepEqual([times.dated, times.both], [began, began]);
    for (const name of ["undated", "yet to come", "of an older export", "of ConnectStore"]) {
      assert.ok(Date.parse(times[name]) >= before && Date.parse(times[name]) <= Date.now(), name);
    }
    const found = entries.find((entry) => entry.session.sessionId === "of ConnectStore");
    assert.deepEqual(found.session, connect);
  });

  it("skips existing and expired sessions", async () => {
    await bench.fill([session("a", "ann")]);
    const lines = [session("a", "ben"), session("b"), session("c", "x", { expires: later(-1) })];
    fs.writeFileSync(bench.in("lines"), asLines(lines));
    for (const created of ["1 session imported; skipped: 1", "0 sessions imported; skipped: 2"]) {
      const { code, stderr } = await bench.run(["import", "lines"]);
      assert.deepEqual([code, stderr], [0, `${created} existing, 1 expired\n`]);
    }
    assert.match(await answerOf("list", "--user", "ann"), /^a\t.+\nb\t.+\n$/);
  });

  it("replaces existing sessions with --replace", async () => {
    await bench.fill([session("a", "ann")]);
    const input = asLines([session("a", "ben"), session("b"), session("b", "ben"), session("b", "eve")]);
    const { code, stderr } = await bench.run(["import", "--replace"], { input });
    assert.deepEqual([code, stderr], [0, "1 session imported, 3 replaced; skipped: 0 expired\n"]);
    assert.match(await answerOf("list"), /^a\tben\t.+\nb\teve\t.+\n$/);
  });

  it("accepts empty lines, Windows line ends, a byte order mark, and a last line without an end", async () => {
    await bench.fill([]);
    const [one, two] = [session("a"), session("b")].map((each) => JSON.stringify(each));
    const { code, stderr } = await bench.run(["import"], { input: `\ufeff${one}\r\n\r\n\n${two}` });
    assert.deepEqual([code, stderr], [0, "2 sessions imported; skipped: 0 existing, 0 expired\n"]);
  });

  for (const [what, bad, words] of [
    ["no JSON", "{ secret", /line 3 is not JSON in UTF-8; stopped after 2 sessions imported; /],
    ["no UTF-8", Buffer.from([0x22, 0xff, 0x22]), /line 3 is not JSON in UTF-8; /],
    ["null", "null", /line 3 is no session; stopped after 2/],
    [
      "no object",
      "42",
      /line 3: session must be an object; got a number \(ERR_INVALID_SESSION\); stopped after/,
    ],
    ["a list", "[]", /line 3: session must be an object/],
    ["without an id", `{"expires":"${later()}"}`, /line 3: sessionId must be/],
    ["without an end", '{"sessionId":"c"}', /line 3: expires must be/],
    ["of an end that is no date", '{"sessionId":"c","expires":"soon"}', /line 3: expires must be/],
    ["of an end that is null", '{"sessionId":"c","expires":null}', /line 3: expires must be/],
    ["a creation of nothing", '{"createdAt":null,"session":null}', /line 3 is no session; stopped after 2/],
    ["a creation of a text", '{"createdAt":null,"session":"c"}', /line 3 is no session; stopped after 2/],
    [
      "of a creation that is no time",
      '{"createdAt":"soon","session":{}}',
      /line 3 is invalid: createdAt must be/,
    ],
    [
      "of a creation that is a number",
      '{"createdAt":5,"session":{}}',
      /line 3 is invalid: createdAt must be/,
    ],
  ]) {
    it(`stops at a line that is ${what}, and reports what it has imported`, async () => {
      await bench.fill([]);
      const good = asLines([session("a"), session("b")]);
      const input = Buffer.concat([Buffer.from(good), Buffer.from(bad), Buffer.from("\n")]);
      await fails(["import"], 1, words, { input });
      assert.equal(linesOf(await answerOf("list")).length, 2);
    });
  }

  it("reports the exact number of imported sessions, also if lines after the bad one were imported", async () => {
    await bench.fill([]);
    const sessions = Array.from({ length: 6000 }, (_, at) => session(`s${at}`));
    sessions[3000].expires = "soon";
    const { code, stderr } = await bench.run(["import"], { input: asLines(sessions) });
    assert.equal(code, 1);
    const [, number] = /line 3001: expires .+; stopped after ([\d,]+) sessions imported/.exec(stderr);
    const count = Number(number.replaceAll(",", ""));
    assert.ok(count >= 3000);
    assert.equal(linesOf(await answerOf("list")).length, count);
  });

  it("accepts sessions that are larger than the default limit", async () => {
    await bench.fill([]);
    const input = asLines([session("a", "ann", { blob: "é".repeat(2e6) })]);
    const { code, stderr } = await bench.run(["import"], { input });
    assert.equal(code, 0, stderr);
    const everything = await answerOf("export", "--quiet");
    assert.equal(exportedSessions(everything)[0].blob.length, 2e6);
  });
});

describe("native-store with secrets", () => {
  const [OLD, NEW] = ["an old secret of enough bytes", "a new secret of enough bytes"];

  it("opens an encrypted store with secrets from a file or the environment", async () => {
    await bench.fill([session("a")], { secret: [NEW, OLD] });
    fs.writeFileSync(bench.in("secrets"), `${NEW}\r\n\n${OLD}\n`);
    const env = { NATIVE_STORE_SECRET: `${NEW}\n${OLD}` };
    assert.match(await answerOf("list", "--secret-file", "secrets"), /^a\t/);
    assert.match((await bench.run(["list"], { env })).stdout, /^a\t/);
    const wrong = { NATIVE_STORE_SECRET: "a secret that is another" };
    assert.match((await bench.run(["list", "--secret-file", "secrets"], { env: wrong })).stdout, /^a\t/);
  });

  it("encrypts a new store with the first secret", async () => {
    const env = { NATIVE_STORE_SECRET: NEW };
    const input = asLines([session("an id that can be found", "a user that can be found")]);
    assert.equal((await bench.run(["import", "--create"], { input, env })).code, 0);
    assert.ok(!fs.readFileSync(bench.in("sessions", "data.mdb")).includes("can be found"));
    assert.match((await bench.run(["list"], { env })).stdout, /^an id that can be found\t/);
    assert.equal((await bench.run(["backup", "copy"], { env })).code, 0);
    assert.ok(!fs.readFileSync(bench.in("copy", "data.mdb")).includes("can be found"));
    assert.match((await bench.run(["list", "--path", "copy"], { env })).stdout, /^an id that can be found\t/);
  });

  it("reports invalid secrets, and never shows one", async () => {
    await bench.fill([session("a")], { secret: OLD });
    await fails(["list"], 2, /the store is encrypted.+--secret-file or NATIVE_STORE_SECRET/);
    for (const secret of [NEW, "short"]) {
      const { code, stderr } = await bench.run(["list"], { env: { NATIVE_STORE_SECRET: secret } });
      assert.equal(code, 2);
      assert.match(stderr, /^native-store: secret must be .+: use --secret-file or NATIVE_STORE_SECRET\n$/);
      assert.ok(!stderr.includes(secret));
    }
    fs.writeFileSync(bench.in("empty"), "\n\n");
    await fails(["list", "--secret-file", "empty"], 2, /the secret file empty is empty/);
  });
});

describe("native-store on a store that is in use", () => {
  it("sees what another process writes, and that process sees what it does", async () => {
    const store = bench.open();
    await store.create(session("a"));
    assert.match(await answerOf("list"), /^a\t/);
    assert.equal(await answerOf("revoke", "--id", "a"), "1 session ended\n");
    assert.equal(await store.get("a"), null);
    await bench.run(["import"], { input: asLines([session("b")]) });
    assert.equal((await store.get("b")).userId, "ann");
  });

  it("reads, copies and checks it while it changes", async () => {
    const store = bench.open();
    const fixed = Array.from({ length: 1000 }, (_, at) => session(`fixed${at}`));
    await Promise.all(fixed.map((each) => store.create(each)));
    let isDone = false;
    const writing = (async () => {
      for (let at = 0; !isDone; at++) {
        await store.create(session(`new${at}`, "ben", { note: "x".repeat(at % 3000) }));
        if (at % 2) await store.delete(`new${at - 1}`);
      }
    })();
    for (const args of [["list", "--json"], ["export"], ["verify"], ["backup", "copy"], ["stats"]]) {
      const { code, stdout, stderr } = await bench.run(args);
      assert.equal(code, 0, `${args}: ${stdout}${stderr}`);
      if (args[0] === "verify" || args[0] === "backup" || args[0] === "stats") continue;
      const sessions = args[0] === "list" ? parsed(stdout) : exportedSessions(stdout);
      const ids = sessions.map(({ sessionId }) => sessionId);
      assert.equal(ids.filter((id) => id.startsWith("fixed")).length, 1000);
      assert.equal(new Set(ids).size, ids.length);
    }
    isDone = true;
    await writing;
    assert.match((await bench.run(["verify", "--path", "copy"])).stdout, /^sound: /);
    assert.equal((await store.getByUser("ann")).length, 1000);
  });
});

describe("native-store on hostile ids and users", () => {
  const HOSTILE = [
    "two\nlines",
    "\r\x1b[2Joverwritten",
    "\x1b]0;title\x07",
    "\x9b31m",
    "a\ttab",
    "\u202egnp.exe",
    "\u2028\u2029",
    "😀",
    "👩‍👩‍👧‍👦",
    "用户",
    '"quoted"',
    " blanks ",
    "../../etc/passwd",
    "__proto__",
    "$(reboot)`reboot`;'",
    "\x7f",
  ];

  it("prints a line for each, and escapes all that could move the cursor", async () => {
    await bench.fill(HOSTILE.map((text) => session(text, `${text} as user`)));
    for (const args of [["list"], ["list", "--json"], ["export", "--quiet"]]) {
      const text = await answerOf(...args);
      assert.equal(linesOf(text).length, HOSTILE.length);
      assert.doesNotMatch(text.replaceAll(/[\t\n]/g, ""), /[\p{Cc}\p{Zl}\p{Zp}\p{Bidi_Control}]/u);
    }
    const ids = parsed(await answerOf("list", "--json")).map(({ sessionId }) => sessionId);
    assert.deepEqual(ids.sort(), [...HOSTILE].sort());
    for (const line of linesOf(await answerOf("list"))) assert.equal(line.split("\t").length, 4);
  });

  it("finds and ends each", async () => {
    await bench.fill(HOSTILE.flatMap((text) => [session(text, text), session(`${text} too`, text)]));
    const end = async (text) => {
      assert.equal(await answerOf("revoke", `--id=${text}`), "1 session ended\n");
      assert.equal(await answerOf("revoke", `--user=${text}`), "1 session ended\n");
    };
    await Promise.all(HOSTILE.map(end));
    assert.equal(await answerOf("list"), "");
  });

  it("escapes them in its errors as well", async () => {
    const complain = async (text) => {
      const { stderr } = await bench.run(["stats", `--path=${text}`]);
      assert.doesNotMatch(stderr.slice(0, -1), /[\p{Cc}\p{Zl}\p{Zp}\p{Bidi_Control}]/u);
      assert.match(stderr, /^native-store: no store at /);
    };
    await Promise.all(HOSTILE.map(complain));
  });
});

describe("native-store in a terminal", { skip: !hasTerminals() && "needs the script of util-linux" }, () => {
  const CLEARED = "\r\x1b[K";

  it("shows the progress of long work, and clears it", async () => {
    await bench.fill(many(20_000));
    for (const args of [["verify"], ["backup", "copy"], ["export", "file"], ["import", "file"]]) {
      const { code, screen } = bench.runInTerminal(args);
      assert.equal(code, 0, screen);
      assert.ok(screen.startsWith(`${CLEARED}${args[0]}`), screen);
      if (args[0] === "export") assert.match(screen, /\[Kexport {2}\[#*\.*\] +\d+ % {2}[\d,]+ of 20,000/);
      const last = screen.slice(screen.lastIndexOf(CLEARED) + CLEARED.length);
      assert.match(last, /^(sound:|backed up|[\d,]+ sessions?) [^\r]+\r\n$/);
    }
  });

  it("shows no progress with --quiet, or on a terminal that cannot", async () => {
    await bench.fill([session("a")]);
    for (const [args, env] of [
      [["verify", "--quiet"], {}],
      [["verify"], { TERM: "dumb" }],
    ]) {
      assert.match(bench.runInTerminal(args, env).screen, /^sound: [^\r]+\r\n$/);
    }
  });

  it("does not mix progress with data", async () => {
    await bench.fill([session("a")]);
    const { screen } = bench.runInTerminal(["export"]);
    assert.match(screen, /^\{"createdAt":".+","session":\{"sessionId":"a".+\}\}\r\n1 session exported\r\n$/);
  });

  it("does not read sessions from a terminal", async () => {
    await bench.fill([]);
    const { code, screen } = bench.runInTerminal(["import"]);
    assert.equal(code, 2);
    assert.match(screen, /^native-store: standard input is a terminal: .+\r\n$/);
  });
});

describe("native-store, when a signal ends it,", { skip: IS_WINDOWS && "Windows has no signals" }, () => {
  /**
   * Sends the signal as soon as there is partial output. Returns how the run ended, and the files that it left next to
   * the store.
   */
  async function interrupt(args, signal) {
    const child = bench.start(args);
    const ending = finish(child);
    const names = () => fs.readdirSync(bench.directory);
    while (!names().some((name) => name.endsWith(".partial") || name === args.at(-1))) await sleep(1);
    child.kill(signal);
    const { signal: endedBy, stderr } = await ending;
    if (endedBy) assert.equal(stderr, "");
    return { endedBy, left: names().filter((name) => name !== "sessions") };
  }

  it("leaves no part of an export behind", async () => {
    await bench.fill(many(20_000));
    for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"]) {
      let run = await interrupt(["export", "file"], signal);
      // On a busy machine the signal may come too late.
      for (let tries = 1; tries < 20 && run.endedBy === null; tries++) {
        fs.rmSync(bench.in("file"));
        run = await interrupt(["export", "file"], signal);
      }
      assert.deepEqual(run, { endedBy: signal, left: [] });
    }
  });

  it("leaves no part of a backup behind", async () => {
    await bench.fill(many(20_000));
    const { endedBy, left } = await interrupt(["backup", "copy"], "SIGINT");
    // The backup may complete before the signal arrives.
    assert.deepEqual(left, endedBy ? [] : ["copy"]);
  });

  it("reports what it has imported", async () => {
    const store = bench.open();
    const child = bench.start(["import"]);
    const ending = finish(child);
    child.stdin.write(asLines([session("a"), session("b"), session("c")]));
    while ((await store.size()) < 3) await sleep(5);
    child.kill("SIGINT");
    const { signal, stderr } = await ending;
    assert.equal(signal, "SIGINT");
    assert.match(stderr, /^native-store: stopped after 3 sessions imported; [^\n]+\n$/);
  });

  it("does not wait for a reader that has stopped", async () => {
    await bench.fill(many(5000));
    const child = bench.start(["export"]);
    await once(child.stdout, "readable");
    child.kill("SIGINT");
    const [code, signal] = await once(child, "exit");
    assert.deepEqual([code, signal], [null, "SIGINT"]);
    child.stdout.destroy();
  });
});

describe("native-store as a package's command", () => {
  it("is the file that package.json names, and can be run", () => {
    const { bin, files } = require("../package.json");
    const file = path.join(__dirname, "..", bin["native-store"]);
    assert.match(fs.readFileSync(file, "utf8"), /^#!\/usr\/bin\/env node\n/);
    assert.ok(files.includes(path.dirname(bin["native-store"])));
    if (!IS_WINDOWS) fs.accessSync(file, fs.constants.X_OK);
  });
});
