"use strict";

const assert = require("node:assert/strict");
const { describe, it } = require("node:test");
const { session: ours } = require("./cli.js");
const { summary, withoutUser } = require("./import-bench.js");
const { connectSession } = require("./old-stores.js");

/** What JSON can have and UTF-8 cannot. */
const LONE_SURROGATE = "\ud800";

const DATA = {
  views: 3,
  passport: { user: 42 },
  nested: { list: [1, { x: null }], text: "é😀\u2028 " },
  constructor: "data",
};

/**
 * What every source of `import --from` has to pass.
 * @param {string} name The package.
 * @param {() => ImportBench} getBench That of the test that runs.
 * @param {() => string[]} getArgs What runs the import from the old store, and makes the new one.
 * @param {(sessions: Record<string, unknown>) => void | Promise<void>} fill Makes the old store, with these sessions by
 *   their sids. Each lives for an hour, if its cookie says nothing.
 * @param {() => unknown} traceOf What tells a change of the old store.
 * @param {string} noun What holds a session there.
 * @param {RegExp} nameOfBad How the ones with a sid that begins with "bad-" are named.
 * @param {boolean} [isUtf8] Whether the old store itself cannot keep what UTF-8 cannot.
 * @param {string} [ownField] What the package adds to a session.
 */
function describeImports(name, { getBench, getArgs, fill, traceOf, noun, nameOfBad, isUtf8, ownField }) {
  describe(name, () => {
    const imports = (args, options) => getBench().imports(args, options);

    it("keeps a session as it was, under its id", async () => {
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

    it("finds the user where it is told to, of any type", async () => {
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

    it("says so where no session has a user, and gives them one by --replace", async () => {
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

    it("skips what is there, and replaces it by --replace", async () => {
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

    it("leaves out what is no session, goes on, and says at the end what it was", async () => {
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

    it("takes a store of nothing, and says nothing of its users", async () => {
      await fill({});
      assert.equal(await imports([...getArgs(), "--user-field", "userId"]), summary(0));
    });

    it("leaves the old store as it is", async () => {
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
