"use strict";

// The model of bench/scale with costs that make the arithmetic simple.

const assert = require("node:assert/strict");
const { execFileSync } = require("node:child_process");
const { readFileSync } = require("node:fs");
const path = require("node:path");
const { describe, it } = require("node:test");
const { percentOff } = require("../bench/scale/check.js");
const { CHOICES, COSTS } = require("../bench/scale/costs.js");
const { BY_DECADE, FIGURES, NEVER, SHARED, calibrationOf, fit } = require("../bench/scale/fit.js");
const {
  capacityOf,
  planFile,
  planMemory,
  planRedis,
  predict,
  trafficOf,
} = require("../bench/scale/model.js");
const { writtenACreate } = require("../bench/scale/writes.js");

const figure = (plain, more = {}) => ({ plain, base: plain, perByte: 0, perDecade: 0, fixed: 0, ...more });

const costs = {
  reference: 1000,
  memory: {
    figures: { bytes: figure(100, { base: 200, perByte: 2 }), get: figure(1000), create: figure(2000) },
  },
  file: {
    figures: {
      bytes: figure(400),
      open: figure(5, { perDecade: 2 }),
      get: figure(2000),
    },
    // No page of the file is written: only the record.
    writes: { recordBytes: 500, changedShare: 0, nsACreate: 10_000, nsAByte: 0 },
  },
  redis: {
    figures: { bytes: figure(1000) },
    cpu: { get: { spread: 10 }, touch: { spread: 20 }, create: { spread: 40 } },
  },
};

const choices = {
  secondsBetweenRequests: 100,
  touchShare: 0.1,
  lifetimeSeconds: 1000,
  machine: { memory: 8e9, cores: 4, diskBytesPerSecond: 1e6 },
  usableMemory: 0.5,
  busyShare: 0.5,
  shardBytes: 1e9,
  replicas: 1,
  failoverSeconds: 10,
  lagSeconds: 2,
  networkBytesPerSecond: 1e8,
};

describe("predict", () => {
  it("has a separate figure for sessions of three fields", () => {
    assert.equal(predict(costs, "memory", { size: 1000, content: 0 }).bytes, 100);
  });

  it("grows with each byte of app data", () => {
    assert.equal(predict(costs, "memory", { size: 1000, content: 50 }).bytes, 300);
  });

  it("grows with each tenfold of sessions, and does not shrink below the measured sizes", () => {
    const openOf = (size) => predict(costs, "file", { size, content: 0 }).open;
    assert.deepEqual([openOf(1), openOf(100), openOf(1000), openOf(100_000)], [3, 3, 5, 9]);
  });
});

describe("the fixed bytes of a store", () => {
  it("are shared by its sessions", () => {
    const shared = { ...costs, memory: { figures: { bytes: figure(100, { fixed: 5000 }) } } };
    const bytesOf = (size) => predict(shared, "memory", { size, content: 0 }).bytes;
    assert.deepEqual([bytesOf(100), bytesOf(1000)], [150, 105]);
  });
});

describe("writtenACreate", () => {
  const writes = { recordBytes: 512, changedShare: 0.5 };
  const writtenAt = (fileBytes, content = 0) => writtenACreate(writes, { fileBytes, content });

  it("is a record, and in a small file the share of all pages that change in a drain", () => {
    // A log of 16 MiB has 32 768 such records, and of 256 pages the half changes in any case.
    assert.ok(Math.abs(writtenAt(256 * 4096) - (512 + (128 * 4096) / 32_768)) < 1e-6);
  });

  it("is four separate pages in an infinite file", () => {
    assert.ok(Math.abs(writtenAt(1e18) - (512 + 4 * 4096)) < 1);
  });

  it("grows with the file and with the content of a session", () => {
    assert.ok(writtenAt(1e9) > writtenAt(1e8));
    assert.ok(writtenAt(1e9, 500) > writtenAt(1e9, 100));
  });
});

describe("trafficOf", () => {
  it("divides the sessions by the time between requests, and by their lifetime", () => {
    assert.deepEqual(trafficOf(choices, 100_000), { gets: 1000, touches: 100, creates: 100 });
  });
});

describe("planMemory", () => {
  it("names the event loop while calls take the larger share", () => {
    const plan = planMemory(costs, choices, { sessions: 100_000, content: 0 });
    assert.equal(plan.bytes, 1e7);
    // 1000 gets of 1 us and 200 writes of 2 us are 1.4 ms of a second, of which half may be used.
    assert.equal(plan.first, "event loop");
    assert.ok(Math.abs(plan.share - 0.0028) < 1e-9, plan.share);
  });

  it("names the memory once sessions are large", () => {
    const plan = planMemory(costs, choices, { sessions: 100_000, content: 10_000 });
    assert.equal(plan.first, "memory");
    assert.ok(Math.abs(plan.share - (20_200 * 1e5) / 4e9) < 1e-9, plan.share);
  });
});

describe("planFile", () => {
  it("names the disk when writes use most of its bandwidth", () => {
    const plan = planFile(costs, choices, { sessions: 1e6, content: 0 });
    assert.equal(plan.writes, 2000);
    assert.equal(plan.writtenPerSecond, 1e6);
    assert.deepEqual([plan.first, plan.share], ["disk", 2]);
    assert.equal(plan.restoreSeconds, 400);
  });

  it("names the writer when the disk is fast", () => {
    const machine = { ...choices.machine, diskBytesPerSecond: 1e12 };
    const plan = planFile(costs, { ...choices, machine }, { sessions: 1e7, content: 0 });
    assert.equal(plan.first, "memory");
    const small = { ...costs, file: { ...costs.file, figures: { ...costs.file.figures, bytes: figure(1) } } };
    assert.equal(planFile(small, { ...choices, machine }, { sessions: 1e7, content: 0 }).first, "writer");
  });
});

describe("capacityOf", () => {
  it("is reached when the busiest resource is full", () => {
    const capacity = capacityOf(planFile, costs, choices, 0);
    assert.ok(Math.abs(capacity - 500_000) < 1, capacity);
    assert.ok(planFile(costs, choices, { sessions: capacity, content: 0 }).share <= 1);
  });
});

describe("planRedis", () => {
  const plan = (sessions, more = {}) => planRedis(costs, { ...choices, ...more }, { sessions, content: 0 });

  it("uses one primary while that has room, and a machine for its replica", () => {
    const { shards, servers, machines } = plan(500_000);
    assert.deepEqual({ shards, servers, machines }, { shards: 1, servers: 2, machines: 2 });
  });

  it("uses three primaries as soon as one is not enough", () => {
    assert.equal(plan(1_000_001).shards, 3);
  });

  it("uses three machines for a cluster, so that none has the majority of the primaries", () => {
    const machine = { ...choices.machine, cores: 64, memory: 1e12 };
    assert.equal(plan(1_000_001, { machine }).machines, 3);
  });

  it("counts shards by their memory", () => {
    const { shards, servers, machines, first } = plan(10_000_000);
    // Two servers on each machine: two of four cores may be busy.
    assert.deepEqual(
      { shards, servers, machines, first },
      { shards: 10, servers: 20, machines: 10, first: "memory" },
    );
  });

  it("counts shards by the server's core if that is full first", () => {
    const { shards, first, cores } = plan(10_000_000, { shardBytes: 1e11 });
    // 100 000 gets, 10 000 touches and 10 000 creates a second.
    assert.ok(Math.abs(cores - 1.6) < 1e-9, cores);
    assert.deepEqual({ shards, first }, { shards: 4, first: "server's core" });
  });

  it("derives the cost of a failover from one shard", () => {
    const { failover } = plan(10_000_000);
    assert.deepEqual(failover, {
      sessions: 1_000_000,
      calls: 120_000,
      writesAtRisk: 4000,
      resyncSeconds: 10,
    });
  });

  it("uses a machine for each copy of a shard", () => {
    assert.equal(plan(1000, { replicas: 2 }).machines, 3);
  });
});

describe("fit", () => {
  /** Returns the row that a store with the given costs would measure. */
  function rowOf(made, { store, size, content }) {
    return { store, size, content, ...predict(made, store, { size, content }) };
  }

  it("finds the costs that rows were made from", () => {
    const figureOf = (change) => ({
      plain: 10,
      base: change === NEVER ? 10 : 30,
      perByte: change === NEVER ? 0 : 0.5,
      perDecade: change === BY_DECADE ? 3 : 0,
      fixed: change === SHARED ? 50_000 : 0,
    });
    const names = Object.keys(FIGURES.file);
    const figures = Object.fromEntries(names.map((name) => [name, figureOf(FIGURES.file[name])]));
    const writes = { recordBytes: 700, changedShare: 0.08, nsACreate: 5000, nsAByte: 3 };
    const made = { reference: 10_000, file: { figures, writes } };
    const rows = calibrationOf("file", 10_000).map((args) => rowOf(made, args));
    const { file } = fit(rows, 10_000);
    assert.deepEqual(file.figures, figures);
    for (const [name, value] of Object.entries(writes)) {
      assert.ok(Math.abs(file.writes[name] / value - 1) < 1e-9, `${name} is ${file.writes[name]}`);
    }
    for (const row of rows) assert.ok(names.every((name) => Math.abs(percentOff(made, row, name)) < 1e-9));
  });

  it("omits the writes of creates if the disk has no counters", () => {
    const made = { reference: 10_000, file: costs.file };
    const rows = calibrationOf("file", 10_000).map((args) => ({ ...rowOf(made, args), sweep: 1 }));
    const uncounted = rows.map((row) => ({ ...row, written: undefined }));
    assert.deepEqual(Object.keys(fit(uncounted, 10_000).file), ["figures"]);
    assert.deepEqual(Object.keys(fit(rows, 10_000).file), ["figures", "writes"]);
  });

  it("omits a store with a missing row", () => {
    const made = { reference: 10_000, file: costs.file };
    const [first, ...others] = calibrationOf("file", 10_000).map((args) => rowOf(made, args));
    assert.ok(first);
    assert.deepEqual(fit(others, 10_000), { reference: 10_000 });
  });
});

describe("the costs and choices of the package", () => {
  it("have all figures of the model, as finite numbers", () => {
    for (const [store, figures] of Object.entries(FIGURES)) {
      assert.deepEqual(Object.keys(COSTS[store].figures).sort(), Object.keys(figures).sort());
    }
    for (const plan of [planMemory, planFile, planRedis]) {
      const { failover = {}, first, ...numbers } = plan(COSTS, CHOICES, { sessions: 1e7, content: 384 });
      assert.equal(typeof first, "string");
      for (const [name, value] of Object.entries({ ...numbers, ...failover })) {
        assert.ok(Number.isFinite(value) && value > 0, `${name} is ${value}`);
      }
    }
  });
});

describe("docs/scaling.md", () => {
  it("contains the output of bench/scale/print.js", () => {
    const document = readFileSync(path.join(__dirname, "../docs/scaling.md"), "utf8");
    const printed = execFileSync(process.execPath, [path.join(__dirname, "../bench/scale/print.js")], {
      encoding: "utf8",
    });
    assert.ok(document.includes(printed.trim()), `the tables of the document are not these:\n${printed}`);
  });
});
