"use strict";

const assert = require("node:assert/strict");
const fs = require("node:fs");
const path = require("node:path");
const { setTimeout: sleep } = require("node:timers/promises");
const { afterEach, beforeEach, describe, it } = require("node:test");
const { asLines, finish, hasTerminals, later, session: ours } = require("./support/cli.js");
const { ImportBench, summary } = require("./support/import-bench.js");
const { describeImports } = require("./support/import-suite.js");
const old = require("./support/old-stores.js");
const drivers = require("./support/sqlite-drivers.js");

const { CONNECT_SQLITE3, BETTER_SQLITE3, HOUR, asFile, betterRow, connectRow, connectSession } = old;
const IS_WINDOWS = process.platform === "win32";
const CLEARED = "\r\x1b[K";
const IS_ROOT = process.getuid?.() === 0;

const FILES = ["import", "--create", "--from", "session-file-store", "old"];
const CONNECT = ["import", "--create", "--from", "connect-sqlite3", "old.db"];
const BETTER = ["import", "--create", "--from", "better-sqlite3-session-store", "old.db"];

let bench;
beforeEach(() => {
  bench = new ImportBench();
});
afterEach(() => bench.cleanUp());

/** Enough for a run to take a while. */
const manySessions = (count) =>
  Array.from({ length: count }, (_, at) => [`s${at}`, connectSession({ note: "x".repeat(500) })]);

const filesOf = (sessions) =>
  Object.fromEntries(sessions.map(([sid, session]) => [`${sid}.json`, asFile(session)]));

const writeFiles = (files) => old.writeFiles(bench.in("old"), files);
const makeConnect = (rows, table) => old.makeDatabase(bench.in("old.db"), CONNECT_SQLITE3, rows, table);
const makeBetter = (rows) => old.makeDatabase(bench.in("old.db"), BETTER_SQLITE3, rows);

const imports = (args, options) => bench.imports(args, options);
const refuses = (args, words, options) => bench.refuses(args, words, options);
const stored = (id) => bench.stored(id);
const storedIds = () => bench.storedIds();
const connectGet = (sid, options) => bench.connectGet(sid, options);

/** Returns the content of a folder, to detect changes. */
function traceOf(folder) {
  const names = fs.readdirSync(folder).sort();
  return names.map((name) => {
    const { size, mtimeMs, mode } = fs.statSync(path.join(folder, name));
    return [name, size, mtimeMs, mode];
  });
}

describe("native-store import --from", () => {
  for (const [args, words] of [
    [
      ["--from", "conect-sqlite3", "x"],
      /--from does not know "conect-sqlite3": did you mean connect-sqlite3\?/,
    ],
    [
      ["--from", "__proto__", "x"],
      /it is one of session-file-store, connect-sqlite3, better-sqlite3-session-store/,
    ],
    [["--from", "session-file-store"], /--from session-file-store needs the <folder> of its store/],
    [["--from", "connect-sqlite3", "-"], /--from connect-sqlite3 needs the <file> of its store/],
    [["--prefix", "a:"], /--prefix goes with --from/],
    [["--user-field", "id"], /--user-field goes with --from/],
    [["--table", "a", "x"], /--table goes with --from connect-sqlite3/],
    [
      ["--from", "better-sqlite3-session-store", "--table", "a", "x"],
      /--table goes with --from connect-sqlite3/,
    ],
    [["--from", "connect-sqlite3", "--ttl", "1", "x"], /--ttl goes with --from session-file-store/],
    [
      ["--from", "session-file-store", "--ttl", "1h", "."],
      /--ttl must be a whole number of milliseconds .+ "1h"/,
    ],
    [["--from", "session-file-store", "--user-field", "a..b", "."], /--user-field must be names .+ "a\.\.b"/],
    [["--from", "session-file-store", "none"], /cannot read none: no such file/],
    [["--from", "connect-sqlite3", "none"], /cannot read none: no such file/],
    [["--from", "connect-sqlite3", "."], /cannot read \.: it is a directory, not an SQLite database/],
    [["--from", "session-file-store", "lines"], /cannot read lines: not a directory/],
    [["--from", "connect-sqlite3", "lines"], /cannot read lines: it is not an SQLite database/],
    [["."], /it is a directory; if it is that of session-file-store, add --from session-file-store/],
  ]) {
    it(`refuses ${["import", ...args].join(" ")}, and makes nothing`, async () => {
      fs.writeFileSync(bench.in("lines"), asLines([ours("a")]));
      await refuses(["import", "--create", ...args], words);
      assert.deepEqual(fs.readdirSync(bench.directory), ["lines"]);
    });
  }

  it("reports a database if --from is missing", async () => {
    makeConnect([]);
    await refuses(["import", "--create", "old.db"], /it is an SQLite database; --from says of which package/);
  });

  it("does not create the store in the folder of the old one, which is ./sessions by default, too", async () => {
    old.writeFiles(bench.storePath, { "a.json": asFile(connectSession()) });
    const args = ["import", "--create", "--from", "session-file-store", "./sessions/"];
    await refuses(args, /\.\/sessions is the old store: --path names another place/);
    assert.deepEqual(fs.readdirSync(bench.storePath), ["a.json"]);
  });

  it("needs a store or --create, like any import", async () => {
    makeConnect([]);
    await refuses(["import", ...CONNECT.slice(2)], /no store at .+; import --create makes one/);
  });

  it("encrypts the imported sessions if there is a secret", async () => {
    const env = { NATIVE_STORE_SECRET: "a secret of enough bytes" };
    makeConnect([connectRow("a", connectSession({ note: "a text that can be found" }))]);
    await imports(CONNECT, { env });
    assert.ok(!fs.readFileSync(bench.in("sessions", "data.mdb")).includes("can be found"));
    assert.match((await bench.run(["list"], { env })).stdout, /^a\t/);
  });
});

describe("native-store import, of each package,", () => {
  const getBench = () => bench;
  describeImports("session-file-store", {
    getBench,
    getArgs: () => FILES,
    fill: (sessions) => writeFiles(filesOf(Object.entries(sessions))),
    traceOf: () => traceOf(bench.in("old")),
    noun: "file",
    nameOfBad: /bad-\w+\.json/,
    ownField: "__lastAccess",
  });

  // Nothing may be left next to a database.
  const traceOfDatabase = () => traceOf(bench.directory).filter(([name]) => name !== "new");
  describeImports("connect-sqlite3", {
    getBench,
    getArgs: () => CONNECT,
    fill: (sessions) => makeConnect(Object.entries(sessions).map((each) => connectRow(...each))),
    traceOf: traceOfDatabase,
    noun: "row",
    nameOfBad: /row \d/,
  });
  describeImports("better-sqlite3-session-store", {
    getBench,
    getArgs: () => BETTER,
    fill: (sessions) => makeBetter(Object.entries(sessions).map((each) => betterRow(...each))),
    traceOf: traceOfDatabase,
    noun: "row",
    nameOfBad: /row \d/,
  });
});

describe("native-store import --from session-file-store", () => {
  it("keeps the store's rule for the end of a session: its last access and the age of its cookie", async () => {
    const lastAccess = Date.now() - 60_000;
    // That store ignores the expiry in the cookie.
    const session = connectSession({}, { maxAge: HOUR, from: lastAccess - 7 * HOUR });
    writeFiles({
      "live.json": asFile(session, lastAccess),
      "old.json": asFile(connectSession({}, { maxAge: HOUR }), Date.now() - HOUR - 1),
    });
    assert.equal(await imports(FILES), summary(1, { expired: 1 }));
    assert.equal((await stored("live")).expires, new Date(lastAccess + HOUR).toISOString());
  });

  it("ends a session whose cookie has no expiry an hour after the last access, or by --ttl", async () => {
    const session = connectSession({}, { maxAge: null });
    const [recent, ago] = [Date.now() - HOUR / 2, Date.now() - 2 * HOUR];
    writeFiles({ "recent.json": asFile(session, recent), "ago.json": asFile(session, ago) });
    assert.equal(await imports(FILES), summary(1, { expired: 1 }));
    assert.equal((await stored("recent")).expires, new Date(recent + HOUR).toISOString());
    const day = 24 * HOUR;
    assert.equal(await imports([...FILES, "--ttl", String(day)]), summary(1, { existing: 1 }));
    assert.equal((await stored("ago")).expires, new Date(ago + day).toISOString());
    assert.equal((await stored("ago")).session.cookie.expires, null);
  });

  it("reads only complete session files", async () => {
    writeFiles({
      "a.json": asFile(connectSession()),
      "b.json.1234567890": asFile(connectSession()),
      "notes.txt": "not a session",
      ".json": "not a session",
    });
    fs.mkdirSync(bench.in("old", "folder.json"));
    assert.equal(await imports(FILES), summary(1));
  });

  it("takes another extension, or none", async () => {
    writeFiles({ "a.session": asFile(connectSession()), "a.session.123": "half" });
    assert.equal(await imports([...FILES, "--extension", ".session"]), summary(1));
    old.writeFiles(bench.in("bare"), { b: asFile(connectSession()), "b.123": "half" });
    assert.equal(await imports([...FILES.slice(0, -1), "bare", "--extension", ""]), summary(1));
    assert.deepEqual(await storedIds(), ["a", "b"]);
    await refuses([...FILES, "--extension", "session"], /--extension must have its dot: \.session/);
    await refuses(FILES, /old has no file whose name ends in \.json: .+ --extension names another/);
  });

  it("reports encrypted, damaged, foreign and unreadable files", async () => {
    writeFiles({
      "a.json": old.encryptedFile(),
      "b.json": old.encryptedFile(),
      "damaged.json": asFile(connectSession({ card: "1234" })).slice(0, -3),
      "empty.json": "",
      "origin.json": JSON.stringify(connectSession()),
      "date.json": asFile(connectSession({}, { maxAge: 1e15 }), 8e15),
    });
    if (!IS_ROOT && !IS_WINDOWS) {
      fs.writeFileSync(bench.in("old", "locked.json"), "{}", { mode: 0 });
    }
    const { code, stderr } = await bench.run(FILES);
    assert.equal(code, 1);
    const names = String.raw`\(\w+\.json, \w+\.json\)`;
    assert.match(stderr, new RegExp(`2 encrypted, which import cannot undo ${names}`));
    assert.match(stderr, new RegExp(`2 not JSON ${names}`));
    assert.match(stderr, /1 without the __lastAccess of session-file-store \(origin\.json\)/);
    assert.match(stderr, /1 without an end time \(date\.json\)/);
    if (!IS_ROOT && !IS_WINDOWS) {
      assert.match(stderr, /1 not to be read: permission denied \(locked\.json\)/);
    }
    assert.doesNotMatch(stderr, /1234|cipher/);
  });

  it("names the first few of many", async () => {
    writeFiles(Object.fromEntries(Array.from({ length: 1100 }, (_, at) => [`s${at}.json`, "{"])));
    const { code, stderr } = await bench.run([...FILES, "--quiet"]);
    assert.equal(code, 1);
    const three = String.raw`s\d+\.json, s\d+\.json, s\d+\.json, …`;
    assert.match(stderr, new RegExp(`^native-store: left out 1,100 files: 1,100 not JSON \\(${three}\\)\n$`));
  });

  it("escapes names of files, so that none can move the cursor", { skip: IS_WINDOWS }, async () => {
    writeFiles({ "\x1b[2J\n\u202e.json": "{" });
    const { stderr } = await bench.run([...FILES, "--quiet"]);
    assert.match(stderr, /^native-store: left out 1 file: 1 not JSON \(\\u001b\[2J\\u000a\\u202e\.json\)\n$/);
  });
});

describe("native-store import --from connect-sqlite3", () => {
  it("takes the end from the row, which the store moves without the cookie", async () => {
    const stale = connectSession({}, { maxAge: HOUR, from: Date.now() - 5 * HOUR });
    const end = Date.now() + HOUR;
    makeConnect([
      connectRow("touched", stale, end),
      connectRow("real", connectSession({}, { maxAge: null }), end + 0.5),
      connectRow("expired", connectSession(), Date.now() - 1),
    ]);
    assert.equal(await imports(CONNECT), summary(2, { expired: 1 }));
    const expires = new Date(end).toISOString();
    assert.deepEqual(await connectGet("touched"), { cookie: { ...stale.cookie, expires } });
    assert.equal((await stored("real")).expires, new Date(end).toISOString());
  });

  it("reads another table", async () => {
    makeConnect([connectRow("a", connectSession())], 'se"ss ions');
    assert.equal(await imports([...CONNECT, "--table", 'se"ss ions']), summary(1));
    await refuses(CONNECT, /old\.db has no table sessions; it has se"ss ions/);
  });

  it("lists other columns, and names the package that uses them", async () => {
    makeBetter([]);
    await refuses(
      CONNECT,
      /has the columns sid, sess, expire, and that of connect-sqlite3 has sid, expired, sess; that is --from better-sqlite3-session-store/,
    );
    fs.rmSync(bench.in("old.db"));
    old.makeDatabase(bench.in("old.db"), "(id, data, expired)", []);
    await refuses(
      BETTER,
      /has the columns id, data, expired, and that of better-sqlite3-session-store has [^;]+$/,
    );
  });

  it("leaves out rows whose values are of other types", async () => {
    const [end, text] = [Date.now() + HOUR, JSON.stringify(connectSession())];
    makeConnect([
      [null, end, text],
      [7, end, text],
      ["", end, text],
      ["blob", end, Buffer.from(text)],
      ["late", "soon", text],
      ["never", null, text],
      ["good", end, text],
    ]);
    const { code, stderr } = await bench.run(CONNECT);
    assert.equal(code, 1);
    assert.match(stderr, /3 with an invalid id: [^(]+\(row 1, row 2, row 3\)/);
    assert.match(stderr, /1 not text \(row 4\); 2 without an end time \(row 5, row 6\)/);
    assert.deepEqual(await storedIds(), ["good"]);
  });

  it("reports a damaged database, and what it had imported", async () => {
    makeConnect(Array.from({ length: 2000 }, (_, at) => connectRow(`s${at}`, connectSession({ at }))));
    const bytes = fs.readFileSync(bench.in("old.db"));
    bytes.fill(0xff, Math.floor(bytes.length / 2));
    fs.writeFileSync(bench.in("old.db"), bytes);
    const { code, stderr } = await bench.run(CONNECT);
    assert.equal(code, 3);
    assert.match(
      stderr,
      /^native-store: cannot read old\.db: .*malformed.* \([\w:-]+\)(; stopped after [^\n]+)?\n$/,
    );
  });
});

describe("native-store import --from better-sqlite3-session-store", () => {
  it("reads its times as SQLite does, in UTC without a zone", async () => {
    const end = new Date(Math.ceil(Date.now() / 1000) * 1000 + HOUR);
    const iso = end.toISOString();
    const text = JSON.stringify(connectSession({}, { maxAge: null }));
    const times = [iso, iso.slice(0, 19).replace("T", " "), iso.slice(0, 19), iso.replace("Z", "+00:00")];
    makeBetter([
      ...times.map((time, at) => [`s${at}`, text, time]),
      ["x", text, later(-1)],
      ["y", text, "soon"],
    ]);
    const { code, stderr } = await bench.run(BETTER, { env: { TZ: "Pacific/Auckland" } });
    assert.match(stderr, /^4 sessions imported; skipped: 0 existing, 1 expired, 1 unreadable\n/);
    assert.match(stderr, /1 without an end time \(row 6\)/);
    assert.equal(code, 1);
    for (const at of times.keys()) assert.equal((await stored(`s${at}`)).expires, iso);
  });
});

describe("native-store import, of SQLite drivers,", () => {
  beforeEach(() => makeConnect([connectRow("a", connectSession())]));

  it("names the package to install if there is none", async () => {
    fs.writeFileSync(bench.in("hide.js"), drivers.HIDE_ALL);
    const env = { NODE_OPTIONS: `--require ${JSON.stringify(bench.in("hide.js"))}` };
    await refuses(
      CONNECT,
      /only be read with a driver; npm install better-sqlite3 in this folder, or run this with Node/,
      { env },
    );
    assert.ok(!fs.existsSync(bench.storePath));
    old.installPackages(bench.directory, { "better-sqlite3": drivers.BROKEN });
    const hide = drivers.HIDE_ALL.replace('"better-sqlite3", ', "");
    fs.writeFileSync(bench.in("hide.js"), hide);
    await refuses(
      CONNECT,
      /better-sqlite3 is there, but does not load: was compiled against .+ version; npm/,
      { env },
    );
  });

  it("prefers better-sqlite3 of the current folder, and opens it read-only", async () => {
    old.installPackages(bench.directory, {
      "better-sqlite3": drivers.BETTER_SQLITE3,
      sqlite3: "throw new Error('not this one')",
    });
    assert.equal(await imports(CONNECT), summary(1));
    const opened = fs.readFileSync(bench.in("opened"), "utf8");
    assert.deepEqual(JSON.parse(opened), [
      fs.realpathSync(bench.in("old.db")),
      { readonly: true, fileMustExist: true },
    ]);
  });

  it("uses the sqlite3 that connect-sqlite3 has in its own folder", async () => {
    old.installPackages(bench.directory, { "connect-sqlite3": "" });
    const home = bench.in("node_modules", "connect-sqlite3");
    old.installPackages(home, {
      sqlite3: `require("node:fs").writeFileSync("loaded", "");${drivers.SQLITE3}`,
    });
    assert.equal(await imports(CONNECT), summary(1));
    assert.ok(fs.existsSync(bench.in("loaded")));
  });

  it("uses the next driver if one does not load", async () => {
    old.installPackages(bench.directory, {
      "better-sqlite3": drivers.BROKEN,
      sqlite3: drivers.SQLITE3,
    });
    assert.equal(await imports(CONNECT), summary(1));
    await refuses([...CONNECT, "--table", "none"], /has no table none; it has sessions/);
  });

  it("does not read the changes of an interrupted transaction", async () => {
    old.giveLog(bench.in("old.db"));
    fs.writeFileSync(bench.in("old.db-journal"), "a part of it");
    await refuses(
      CONNECT,
      /cannot read old\.db: a transaction in it is not finished; stop the app, or start it once/,
    );
    fs.renameSync(bench.in("old.db"), bench.in("real.db"));
    fs.renameSync(bench.in("old.db-journal"), bench.in("real.db-journal"));
    fs.symlinkSync("real.db", bench.in("old.db"));
    await refuses(CONNECT, /cannot read old\.db: a transaction in it/);
  });

  it("reads a closed database with a write-ahead log, and leaves no files next to it", async () => {
    old.giveLog(bench.in("old.db"));
    fs.mkdirSync(bench.in("tmp"));
    const before = traceOf(bench.directory).filter(([name]) => name === "old.db");
    const env = { TMPDIR: bench.in("tmp"), TEMP: bench.in("tmp") };
    assert.equal(await imports(CONNECT, { env }), summary(1));
    assert.deepEqual(fs.readdirSync(bench.in("tmp")), []);
    assert.deepEqual(fs.readdirSync(bench.directory).sort(), ["old.db", "sessions", "tmp"]);
    assert.deepEqual(
      traceOf(bench.directory).filter(([name]) => name === "old.db"),
      before,
    );
  });
});

describe("native-store import --from, in a terminal", { skip: !hasTerminals() && "needs script" }, () => {
  it("shows how many of all files or rows it has read, and clears that", async () => {
    const sessions = manySessions(20_000);
    makeConnect(sessions.map((each) => connectRow(...each)));
    writeFiles(filesOf(sessions.slice(0, 8000)));
    for (const [args, total] of [
      [CONNECT, "20,000"],
      [[...FILES, "--path", "two"], "8,000"],
    ]) {
      const { code, screen } = bench.runInTerminal(args);
      assert.equal(code, 0, screen);
      assert.match(screen, new RegExp(String.raw`\[Kimport {2}\[#*\.*\] +\d+ % {2}[\d,]+ of ${total}`));
      const last = screen.slice(screen.lastIndexOf(CLEARED) + CLEARED.length);
      assert.match(
        last,
        new RegExp(`^${total} sessions imported; [^\r]+\r\nno session has a user: [^\r]+\r\n$`),
      );
    }
  });
});

describe("native-store import --from, when a signal ends it,", { skip: IS_WINDOWS && "no signals" }, () => {
  const PACKAGES = {
    "session-file-store": { args: FILES, fill: (sessions) => writeFiles(filesOf(sessions.slice(0, 15_000))) },
    "connect-sqlite3": {
      args: CONNECT,
      fill: (sessions) => {
        makeConnect(sessions.map((each) => connectRow(...each)));
        old.giveLog(bench.in("old.db"));
      },
    },
  };
  for (const [name, { args, fill }] of Object.entries(PACKAGES)) {
    it(`reports what it has imported from ${name}, and leaves no copy behind`, async () => {
      fill(manySessions(40_000));
      fs.mkdirSync(bench.in("tmp"));
      const child = bench.start(args, { env: { TMPDIR: bench.in("tmp") } });
      const ending = finish(child);
      while (!fs.existsSync(bench.in("sessions", "data.mdb"))) await sleep(1);
      await sleep(50);
      child.kill("SIGINT");
      const { signal, stderr } = await ending;
      assert.equal(signal, "SIGINT");
      assert.match(stderr, /^native-store: stopped after [\d,]+ sessions imported; skipped: [^\n]+\n$/);
      assert.deepEqual(fs.readdirSync(bench.in("tmp")), []);
      const [, count] = /after ([\d,]+) /.exec(stderr);
      assert.equal((await storedIds()).length, Number(count.replaceAll(",", "")));
    });
  }
});
