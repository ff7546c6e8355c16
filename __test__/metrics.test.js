"use strict";

// The Prometheus recipe in `docs/operating.md`, and its dashboard.

const assert = require("node:assert/strict");
const fs = require("node:fs");
const path = require("node:path");
const { after, describe, it } = require("node:test");
const { FileStore, MemoryStore } = require("..");
const { operations } = require("../examples/shared/operations.js");
const { storeMetrics } = require("../examples/shared/metrics.js");
const dashboard = require("../docs/grafana.json");
const { session } = require("./conformance.js");
const { makePlace } = require("./support/file-places.js");
const { makeRedisPlace } = require("./support/redis-places.js");
const { redisMissing } = require("./support/redis-servers.js");

const place = makePlace();
const redis = makeRedisPlace();

/** Parses the values of a Prometheus text, by name and labels. */
function valuesOf(text) {
  const lines = text.split("\n").filter((line) => line !== "" && !line.startsWith("#"));
  return new Map(
    lines.map((line) => {
      assert.match(line, /^native_store_\w+\{.+\} (\d|\.|e-)+$/);
      const at = line.lastIndexOf(" ");
      return [line.slice("native_store_".length, at), Number(line.slice(at + 1))];
    }),
  );
}

const namesOf = (values) => new Set([...values.keys()].map((key) => key.split("{")[0]));

const OWN = {
  memory: ["sessions", "bytes"],
  file: ["sessions", "bytes", "file_bytes", "queue_bytes", "queue_limit_bytes"],
  redis: ["connects_total", "disconnects_total", "connect_failures_total", "retries_total"],
};
const STORES = {
  memory: { open: () => new MemoryStore() },
  file: { open: () => new FileStore({ path: place.next() }) },
  redis: { open: () => redis.open(), skip: redisMissing },
};

for (const [type, { open, skip = false }] of Object.entries(STORES)) {
  describe(`the metrics of a store of type ${type}`, { skip }, () => {
    it("match its stats, scrape after scrape", async () => {
      const store = open();
      const metrics = storeMetrics(store);
      const one = session();
      await store.create(one);
      for (let call = 0; call < 70; call++) await store.get(one.sessionId);
      await store.get("none");
      await assert.rejects(store.create(one));
      await store.clean();
      for (let scrape = 0; scrape < 2; scrape++) {
        const values = valuesOf(await metrics.text());
        const value = (name, labels = "") => values.get(`${name}{store="${type}"${labels}}`);
        assert.equal(value("ready"), 1);
        assert.equal(value("hits_total"), 70);
        assert.equal(value("misses_total"), 1);
        assert.equal(value("created_total"), 1);
        assert.equal(value("calls_total", ',call="get"'), 71);
        assert.equal(value("call_errors_total", ',call="create",code="ERR_SESSION_EXISTS"'), 1);
        const measured = value("call_duration_seconds_count", ',call="get"');
        assert.equal(measured, type === "redis" ? 71 : 2);
        assert.equal(value("call_duration_seconds_bucket", ',call="get",le="+Inf"'), measured);
        assert.ok(value("call_duration_seconds_bucket", ',call="get",le="0.001"') <= measured);
        assert.ok(value("call_duration_seconds_sum", ',call="get"') > 0);
        const names = namesOf(values);
        for (const name of OWN[type]) assert.ok(names.has(name), name);
        for (const other of Object.values(OWN).flat()) {
          assert.equal(names.has(other), OWN[type].includes(other), other);
        }
      }
      await store.close();
    });
  });
}

describe("/healthz and /metrics", () => {
  it("respond, also for a store that cannot serve", async () => {
    const store = new MemoryStore();
    const answers = operations(store);
    const { status, type, text } = await answers["/metrics"]();
    assert.deepEqual([status, type], [200, "text/plain; version=0.0.4; charset=utf-8"]);
    assert.match(text, /^# TYPE native_store_calls_total counter$/m);
    assert.equal((await answers["/healthz"]()).status, 200);
    await store.close();
    const health = await answers["/healthz"]();
    assert.equal(health.status, 503);
    assert.match(health.text, /^ERR_STORE_CLOSED/);
  });
});

describe("docs/operating.md", () => {
  const docs = fs.readFileSync(path.join(__dirname, "../docs/operating.md"), "utf8");

  it("links the files that it describes", () => {
    for (const [, target] of docs.matchAll(/\]\((\.{0,2}[^)#:]+)(?:#[^)]*)?\)/g)) {
      assert.ok(fs.existsSync(path.join(__dirname, "../docs", target)), target);
    }
  });
});

describe("the dashboard", () => {
  const stores = [new MemoryStore(), new FileStore({ path: place.next() })];
  after(() => Promise.all(stores.map((store) => store.close())));

  it("uses existing metrics", async () => {
    const known = new Set(Object.values(OWN).flat());
    for (const store of stores) {
      await store.clean();
      await assert.rejects(store.create({}));
      for (const name of namesOf(valuesOf(await storeMetrics(store).text()))) known.add(name);
    }
    const expressions = dashboard.panels.flatMap(({ targets }) => targets.map(({ expr }) => expr));
    const asked = expressions.flatMap((expr) =>
      [...expr.matchAll(/native_store_(\w+)/g)].map(([, name]) => name),
    );
    assert.ok(asked.length > 20);
    const logs = ["log_used_bytes", "log_size_bytes"];
    for (const name of asked) assert.ok(known.has(name) || logs.includes(name), name);
  });
});
