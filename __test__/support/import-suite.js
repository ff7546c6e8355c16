"use strict";

const assert = require("node:assert/strict");
const { describe, it } = require("node:test");
const { session: ours } = require("./cli.js");
const { summary, withoutUser } = require("./import-bench.js");
const { connectSession } = require("./old-stores.js");

/** Valid in JSON, but not in UTF-8. */
const LONE_SURROGATE = "\ud800";

const DATA = {
  views: 3,
  passport: { user: 42 },
  nested: { list: [1, { x: null }], text: "é😀\u2028 " },
  constructor: "data",
};

/**
 * The suite for every source of `import --from`.
 * @param {string} name The package.
 * @param {() => ImportBench} getBench Returns the bench of the running test.
 * @param {() => string[]} getArgs Returns the arguments that import the old store into a new one.
 * @param {(sessions: Record<string, unknown>) => void | Promise<void>} fill Creates the old store with these sessions,
 * by sid. Each lives for an hour if its cookie has no expiry.
 * @param {() => unknown} traceOf Returns a value that changes when the old store does.
 * @param {string} noun The noun for the container of a session.
 * @param {RegExp} nameOfBad Matches the names of sessions whose sid starts with "bad-".
 * @param {boolean} [isUtf8] Whether the old store cannot keep strings that are invalid in UTF-8.
 * @param {string} [ownField] The field that the package adds to a session.
 */
function describeImports(name, { getBench, getArgs, fill, traceOf, noun, nameOfBad, isUtf8, ownField }) {
  describe(name, () => {
    const imports = (args, options) => getBench().imports(args, options);

    it("keeps a session unchanged, with its id", async () => {
      const session = connectSession(isUtf8 ? DATA : { ...DATA, odd: LONE_SURROGATE });
      await fill({ Xy_1: session, endless: connectSession({ n: 1 }, { maxAge: null }) });
      assert.equal(await imports(getArgs()), summary(2));
      const { [ownField]: own, ...given } = await getBench().connectGet("Xy_1");
      assert.equal(JSON.stringify(given), JSON.stringify(session));
      assert.equal(own !== undefined, ownField !== undefined);
      assert.equal((await getBench().connectGet("endless")).cookie.expires, null);
      const record = await getBench().stored("Xy_1");
      assert.deepEqual(Object.keys(record), ["sessionId", "expires", "session"]);
      assert.equal(record.expires, session.cookie.expires);
    });

    it("puts the prefix before the ids, as ConnectStore does", async () => {
      await fill({ a: connectSession({ n: 1 }) });
      await imports([...getArgs(), "--prefix", "sess:"]);
      await imports(getArgs());
      assert.deepEqual(await getBench().storedIds(), ["a", "sess:a"]);
      assert.equal((await getBench().connectGet("a", { prefix: "sess:" })).n, 1);
    });

    it("finds the user in the given field, of any type", async () => {
      await fill({
        number: connectSession({ passport: { user: 42 } }),
        object: connectSession({ passport: { user: { id: 1 } } }),
        none: connectSession({ passport: {} }),
        nobody: connectSession({ passport: { user: null } }),
        other: connectSession({ passport: "user" }),
      });
      assert.equal(
        await imports([...getArgs(), "--user-field", "passport.user"]),
        summary(5, { hasUsers: true }),
      );
      const users = async (json) =>
        (await getBench().run(["list", "--user-json", json])).stdout.split("\t")[0];
      assert.deepEqual([await users("42"), await users('{"id":1}')], ["number", "object"]);
      assert.ok(!("userId" in (await getBench().stored("nobody"))));
    });

    it("reports that no session has a user, and adds users with --replace", async () => {
      await fill({ a: connectSession({ userId: 1 }) });
      const counts = summary(1, { hasUsers: true });
      assert.equal(
        await imports([...getArgs(), "--user-field", "userid"]),
        counts + withoutUser(" in userid"),
      );
      assert.equal(await imports([...getArgs(), "--path", "other"]), counts + withoutUser());
      assert.equal(await imports([...getArgs(), "--path", "quiet", "--quiet"]), "");
      assert.equal(
        await imports([...getArgs(), "--replace", "--user-field", "userId"]),
        "0 sessions imported, 1 replaced; skipped: 0 expired\n",
      );
      assert.match((await getBench().run(["list", "--user-json", "1"])).stdout, /^a\t/);
    });

    it("skips existing sessions, and replaces them with --replace", async () => {
      await fill({ a: connectSession({ n: 1 }), b: connectSession({ n: 1 }) });
      await getBench().fill([ours("a", "ann")]);
      assert.equal(await imports(getArgs()), summary(1, { existing: 1 }));
      assert.equal((await getBench().stored("a")).userId, "ann");
      assert.equal(
        await imports([...getArgs(), "--replace"]),
        `0 sessions imported, 2 replaced; skipped: 0 expired\n${withoutUser()}`,
      );
      assert.equal((await getBench().stored("a")).session.n, 1);
    });

    it("leaves out invalid sessions, continues, and reports them at the end", async () => {
      await fill({
        "bad-list": [],
        "bad-null": null,
        "no-cookie": { views: 1 },
        "null-cookie": { cookie: null },
        ["x".repeat(249)]: connectSession(),
        good: connectSession({ secret: "do not show" }),
      });
      const { code, stdout, stderr } = await getBench().run([...getArgs(), "--prefix", "sess:abc"]);
      assert.deepEqual([code, stdout], [1, ""]);
      const [counts, note, reasons] = stderr.split("\n");
      assert.equal(`${counts}\n${note}\n`, summary(1, { unreadable: 5 }));
      assert.match(reasons, new RegExp(`^native-store: left out 5 ${noun}s: `));
      const bad = nameOfBad.source;
      assert.match(reasons, new RegExp(`2 not a JSON object \\(${bad}, ${bad}\\)`));
      assert.match(reasons, /2 without a cookie \(/);
      assert.match(reasons, /1 with an invalid id: 1 to 256 bytes are accepted, prefix included \(/);
      assert.doesNotMatch(reasons, /do not show/);
      assert.deepEqual(await getBench().storedIds(), ["sess:abcgood"]);
      const quiet = await getBench().run([...getArgs(), "--quiet"]);
      assert.match(quiet.stderr, /^native-store: left out 4 [^\n]+\n$/);
    });

    it("accepts an empty store, without a note about users", async () => {
      await fill({});
      assert.equal(await imports([...getArgs(), "--user-field", "userId"]), summary(0));
    });

    it("does not change the old store", async () => {
      await fill({ a: connectSession(), b: connectSession() });
      const before = await traceOf();
      await imports([...getArgs(), "--path", "new"]);
      assert.deepEqual(await traceOf(), before);
    });

    it("imports many", async () => {
      await fill(
        Object.fromEntries(Array.from({ length: 1234 }, (_, at) => [`s${at}`, connectSession({ at })])),
      );
      assert.match(await imports(getArgs()), /^1,234 sessions imported; /);
      assert.equal((await getBench().storedIds()).length, 1234);
    });
  });
}

module.exports = { describeImports };
