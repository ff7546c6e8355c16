"use strict";

// The common suite of the examples on ConnectStore.

const assert = require("node:assert/strict");
const path = require("node:path");
const { after, afterEach, before, beforeEach, describe, it } = require("node:test");
const { FileStore } = require("../..");
const { ADA, Client, GRACE, IPHONE, kill, killAll, start } = require("./example-server.js");
const { makePlace } = require("./file-places.js");

const DAY = 24 * 60 * 60_000;
const WITH_REMEMBER = { ...ADA, remember: "on" };

/**
 * @param {object} example
 * @param {string} example.name Its folder.
 * @param {string} example.cookieName
 * @param {(app: object) => { listen, close, server }} example.toServer Creates a server from the result of `createApp`.
 */
function testExample({ name, cookieName, toServer }) {
  const { next: newFolder } = makePlace();
  const clientOf = (url, userAgent) => new Client(url, cookieName, userAgent);

  const withCookie = (url, cookie) => Object.assign(clientOf(url), { cookie });

  async function assertAnonymous(url, cookie) {
    const { status, location } = await withCookie(url, cookie).request("/");
    assert.deepEqual([status, location], [303, "/login"]);
  }

  describe(`the ${name} example`, () => {
    let server;
    // The store of the server in a second process.
    let store;
    let laptop;
    let phone;

    before(async () => {
      const dataDir = newFolder();
      server = await start(name, dataDir);
      store = new FileStore({ path: path.join(dataDir, "sessions") });
    });

    after(async () => {
      await killAll();
      await store.close();
    });

    beforeEach(() => {
      laptop = clientOf(server.url);
      phone = clientOf(server.url, IPHONE);
    });

    afterEach(() => store.clear());

    it("sends an anonymous visitor to the login form, and creates no session", async () => {
      await assertAnonymous(server.url, "");
      const { status, text } = await laptop.request("/login");
      assert.equal(status, 200);
      assert.match(text, /<label for="password">/);
      assert.deepEqual([laptop.set, await store.size()], ["", 0]);
    });

    it("serves /healthz and /metrics", async () => {
      const health = await laptop.request("/healthz");
      assert.equal(health.status, 200);
      assert.match(health.text, /^ok, in [\d.]+ ms\n$/);
      const metrics = await laptop.request("/metrics");
      assert.equal(metrics.status, 200);
      assert.match(metrics.text, /^native_store_ready\{store="file"\} 1$/m);
      assert.deepEqual([laptop.set, await store.size()], ["", 0]);
    });

    it("shows who is logged in, with the session's device", async () => {
      const { status, location } = await laptop.post("/login", ADA);
      assert.deepEqual([status, location], [303, "/"]);
      assert.match((await laptop.request("/")).text, /Ada Lovelace/);
      const [session, ...others] = await laptop.sessions();
      assert.deepEqual([session.device, session.isCurrent, others], ["Firefox on Linux", true, []]);
    });

    it("answers a wrong password and an unknown address alike, and keeps the email in the form", async () => {
      for (const email of [ADA.email, '"><b>@example.com', "constructor"]) {
        const { status, text } = await laptop.post("/login", { email, password: "wrong" });
        assert.equal(status, 401);
        assert.match(text, /Email or password is wrong/);
        assert.ok(text.includes(`value="${email.replace('"><b>', "&quot;&gt;&lt;b&gt;")}"`));
      }
      assert.equal((await laptop.post("/login")).status, 401);
      const twice = [...Object.entries(ADA), ...Object.entries(ADA)];
      assert.equal((await laptop.post("/login", twice)).status, 401);
      assert.deepEqual([laptop.set, await store.size()], ["", 0]);
    });

    it("keeps its cookie from scripts and other sites, and lets it end with the browser", async () => {
      await laptop.login();
      assert.match(laptop.set, /; HttpOnly/);
      assert.match(laptop.set, /; SameSite=Strict/);
      assert.doesNotMatch(laptop.set, /Expires|Max-Age|Domain|Secure/);
      const [{ expires }] = await store.getByUser(1);
      assert.ok(Date.parse(expires) < Date.now() + 31 * 60_000);
    });

    it("remembers a user on request, but not the next user of the same browser", async () => {
      await laptop.login(WITH_REMEMBER);
      await laptop.request("/");
      const ends = Date.parse(/Expires=([^;]+)/.exec(laptop.set)[1]);
      assert.ok(Math.abs(ends - Date.now() - 30 * DAY) < 60_000, laptop.set);
      const [{ expires }] = await store.getByUser(1);
      assert.ok(Math.abs(Date.parse(expires) - ends) < 60_000, expires);
      await laptop.login(GRACE);
      assert.doesNotMatch(laptop.set, /Expires/);
      const [{ session, expires: sooner }] = await store.getByUser(2);
      assert.ok(Date.parse(sooner) < Date.now() + 31 * 60_000);
      assert.equal(session.cookie.expires, null);
    });

    it("changes the session id at login, and ends the previous session", async () => {
      await laptop.login(ADA);
      const { cookie } = laptop;
      await laptop.login(GRACE);
      assert.notEqual(laptop.cookie, cookie);
      assert.match((await laptop.request("/")).text, /Grace Hopper/);
      await assertAnonymous(server.url, cookie);
      assert.equal(await store.size(), 1);
    });

    it("lets one session end another of the same user, and itself", async () => {
      await laptop.login();
      await phone.login();
      const devices = (await laptop.sessions()).map((session) => session.device);
      assert.deepEqual(devices, ["Firefox on Linux", "Safari on iPhone"]);
      await laptop.post("/sessions/revoke", { session: await phone.handle() });
      assert.deepEqual([await phone.isLoggedIn(), await laptop.isLoggedIn()], [false, true]);
      const { location } = await laptop.post("/sessions/revoke", { session: await laptop.handle() });
      assert.equal(location, "/login?notice=logged-out");
      assert.deepEqual([laptop.cookie, await store.size()], ["", 0]);
    });

    it("ends nothing of another user", async () => {
      await laptop.login(ADA);
      await phone.login(GRACE);
      await laptop.post("/sessions/revoke", { session: await phone.handle() });
      await laptop.post("/sessions/revoke-others");
      await laptop.post("/sessions/revoke-all");
      assert.deepEqual([await laptop.isLoggedIn(), await phone.isLoggedIn()], [false, true]);
    });

    it("logs out everywhere else, and everywhere", async () => {
      const tablet = await clientOf(server.url).login();
      await laptop.login();
      await phone.login();
      const alive = () => Promise.all([laptop, phone, tablet].map((client) => client.isLoggedIn()));
      await laptop.post("/sessions/revoke-others");
      assert.deepEqual(await alive(), [true, false, false]);
      await phone.login();
      await laptop.post("/sessions/revoke-all");
      assert.equal(laptop.cookie, "");
      assert.deepEqual(await alive(), [false, false, false]);
    });

    it("ends the session at logout for all holders of its cookie", async () => {
      await laptop.login(WITH_REMEMBER);
      const { cookie } = laptop;
      const { status, location } = await laptop.post("/logout");
      assert.deepEqual([status, location], [303, "/login?notice=logged-out"]);
      assert.deepEqual([laptop.cookie, await store.size()], ["", 0]);
      await assertAnonymous(server.url, cookie);
      assert.equal(
        (await withCookie(server.url, cookie).post("/device", { device: "x" })).location,
        "/login",
      );
      assert.equal((await withCookie(server.url, cookie).post("/logout")).status, 303);
      assert.equal(await store.size(), 0);
    });

    it("does not bring back a session that ends while a request changes it", async () => {
      const endings = [
        () => laptop.post("/logout"),
        () => laptop.post("/sessions/revoke-all"),
        async () => (await clientOf(server.url).login()).post("/sessions/revoke-others"),
      ];
      for (const end of endings) {
        await laptop.login(WITH_REMEMBER);
        const { cookie } = laptop;
        const finish = await laptop.hold("/device", { device: "a ghost" });
        await end();
        // It had the session, or the response would be the login form.
        assert.deepEqual(await finish(), { status: 303, location: "/?notice=renamed" });
        await assertAnonymous(server.url, cookie);
        const left = (await store.getByUser(1)).map(({ session }) => session.device);
        assert.ok(!left.includes("a ghost"));
      }
    });

    it("treats a stale and a garbage cookie as anonymous", async () => {
      await laptop.login();
      await phone.login();
      const [{ sessionId }] = await store.getByUser(1);
      await store.touch(sessionId, Date.now() - 1);
      await assertAnonymous(server.url, laptop.cookie);
      const bare = [sessionId, "__proto__", "garbage", "s%3A", ".", "%", "%F0%9F%A6%80", "a".repeat(4000)];
      for (const garbage of [...bare, `${phone.cookie.slice(0, -4)}AAAA`, phone.cookie.slice(1)]) {
        await assertAnonymous(server.url, garbage);
        assert.equal((await withCookie(server.url, garbage).request("/login")).status, 200, garbage);
      }
      assert.equal((await withCookie(server.url, "garbage").post("/login", ADA)).location, "/");
    });

    it("refuses a form that another site sends", async () => {
      await laptop.login();
      const headers = { "sec-fetch-site": "cross-site" };
      for (const path of ["/login", "/logout", "/device", "/sessions/revoke-all", "/nowhere"]) {
        assert.equal((await laptop.request(path, { form: ADA, headers })).status, 403, path);
      }
      assert.equal(await laptop.isLoggedIn(), true);
      assert.equal((await laptop.request("/", { headers })).status, 200);
    });

    it("has a page for an unknown address and for an invalid form", async () => {
      const { status, text } = await laptop.request("/nowhere");
      assert.equal(status, 404);
      assert.match(text, /Page not found/);
      const headers = { "content-type": "application/x-www-form-urlencoded; charset=nonsense" };
      const huge = await laptop.request("/login", { form: { email: "a".repeat(2 ** 21) } });
      assert.equal(huge.status, 413);
      assert.match(huge.text, /Bad request/);
      assert.ok((await laptop.request("/login", { form: ADA, headers })).status < 500);
    });

    it("renames a device, and escapes its name", async () => {
      laptop.userAgent = `<script>alert("1")</script>'&`;
      await laptop.login();
      assert.ok(
        (await laptop.request("/")).text.includes(
          "&lt;script&gt;alert(&quot;1&quot;)&lt;/script&gt;&#39;&amp;",
        ),
      );
      await laptop.post("/device", { device: `  <i>"my" phone</i>${"!".repeat(100)}` });
      const { text } = await laptop.request("/");
      assert.ok(text.includes("&lt;i&gt;&quot;my&quot; phone&lt;/i&gt;!!!"));
      assert.doesNotMatch(text, /<script|<i>|!{80}/);
    });

    it("shows no session id, and runs no script", async () => {
      await laptop.login();
      await phone.login();
      const response = await fetch(`${server.url}/`, {
        headers: { cookie: `${cookieName}=${laptop.cookie}` },
      });
      const text = await response.text();
      for await (const id of store.ids()) assert.ok(!text.includes(id));
      assert.match(response.headers.get("content-security-policy"), /default-src 'none'/);
      assert.equal(response.headers.get("cache-control"), "no-store");
      assert.match(response.headers.get("content-type"), /^text\/html; charset=utf-8/);
      const style = await fetch(`${server.url}/style.css`);
      assert.match(style.headers.get("content-type"), /^text\/css/);
    });
  });

  describe(`the ${name} example's server`, () => {
    afterEach(killAll);

    it("keeps its visitors logged in, and logged out, when it is killed and started again", async () => {
      const dataDir = newFolder();
      const first = await start(name, dataDir);
      const laptop = await clientOf(first.url).login();
      const phone = await clientOf(first.url, IPHONE).login(WITH_REMEMBER);
      await kill(first.child);

      const second = await start(name, dataDir);
      assert.equal(await withCookie(second.url, laptop.cookie).isLoggedIn(), true);
      assert.equal(await withCookie(second.url, phone.cookie).isLoggedIn(), true);
      await withCookie(second.url, phone.cookie).post("/sessions/revoke-others");
      await kill(second.child);

      const third = await start(name, dataDir);
      assert.equal(await withCookie(third.url, laptop.cookie).isLoggedIn(), false);
      assert.equal(await withCookie(third.url, phone.cookie).isLoggedIn(), true);
      await kill(third.child);
    });

    it("completes a request in flight when it receives SIGTERM", async () => {
      const dataDir = newFolder();
      const { child, url } = await start(name, dataDir);
      const laptop = await clientOf(url).login();
      const finish = await laptop.hold("/device", { device: "the last" });
      const code = kill(child, "SIGTERM");
      assert.equal((await finish()).location, "/?notice=renamed");
      assert.equal(await code, 0);
      const store = new FileStore({ path: path.join(dataDir, "sessions") });
      const [{ session }] = await store.getByUser(1);
      await store.close();
      assert.equal(session.device, "the last");
    });

    it("sends a Secure cookie in production, behind an HTTPS proxy", async () => {
      const { url } = await start(name, newFolder(), { NODE_ENV: "production" });
      const laptop = clientOf(url);
      await laptop.request("/login", { form: ADA, headers: { "x-forwarded-proto": "https" } });
      assert.match(laptop.set, /; Secure/);
    });

    it("shows its error page when the store fails, without the error", async (t) => {
      const { createApp } = require(`../../examples/${name}/app`);
      const { openStore } = require(`../../examples/${name}/store`);
      const connectStore = openStore({ Store: FileStore, options: { path: newFolder() } });
      const app = toServer(createApp({ store: connectStore, secret: "the secret of this test, 32 long" }));
      await app.listen({ host: "127.0.0.1", port: 0 });
      t.after(() => {
        app.server.closeAllConnections();
        return app.close();
      });
      const laptop = await clientOf(`http://127.0.0.1:${app.server.address().port}`).login();
      const log = t.mock.method(console, "error", () => {});
      const assertFails = async (code, ...request) => {
        const { status, text } = await laptop.request(...request);
        assert.equal(status, 500);
        assert.match(text, /<h1>Something went wrong/);
        assert.doesNotMatch(text, /ERR_|at .*\.js|full|closed/);
        assert.equal(log.mock.calls.at(-1).arguments[0].code, code);
      };
      const full = async () => {
        throw Object.assign(new Error("the store is full"), { code: "ERR_STORE_FULL" });
      };
      const writes = ["create", "update", "touch"].map((method) =>
        t.mock.method(connectStore.store, method, full),
      );
      await assertFails("ERR_STORE_FULL", "/device", { form: { device: "new" } });
      await assertFails("ERR_STORE_FULL", "/login", { form: ADA });
      for (const write of writes) write.mock.restore();
      await connectStore.close();
      await assertFails("ERR_STORE_CLOSED", "/");
      await assertFails("ERR_STORE_CLOSED", "/login", { form: ADA });
    });
  });
}

module.exports = { testExample };
