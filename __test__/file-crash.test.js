"use strict";

// Processes that are killed while they write: no acknowledged write is lost, and no other process is blocked.
// `CRASH_ROUNDS` asks for more rounds.

const assert = require("node:assert/strict");
const { spawn } = require("node:child_process");
const { once } = require("node:events");
const path = require("node:path");
const { describe, it } = require("node:test");
const { setTimeout: sleep } = require("node:timers/promises");
const { FileStore } = require("..");
const { Expected, readLog } = require("./support/file-crash-log.js");
const { makePlace, skip } = require("./support/file-places.js");
const { session } = require("./support/file-session.js");

const ROUNDS = Number(process.env.CRASH_ROUNDS ?? 30);
// The next writers continue with the store of the killed ones.
const ROUNDS_OF_A_STORE = 5;
const WRITER = path.join(__dirname, "support/file-crash-writer.js");

const between = (from, to) => from + Math.floor(Math.random() * (to - from));

/** Kinds of stores: plain and encrypted, on a disk and in memory, kept open by another process or not. */
const kindOf = (turn) => ({
  secret: turn % 2 ? "a secret of some length" : undefined,
  onDisk: turn % 4 < 2,
  isKeptOpen: turn % 3 > 0,
});

/** Starts a writer and kills it at a random moment: mostly while it writes, sometimes while it opens the store. */
async function writeAndDie(config) {
  const child = spawn(process.execPath, [WRITER, JSON.stringify(config)], {
    stdio: ["ignore", "pipe", "inherit"],
  });
  const exit = once(child, "exit");
  const isEarly = Math.random() < 0.15;
  if (!isEarly) await Promise.race([once(child.stdout, "data"), exit]);
  await sleep(isEarly ? between(30, 90) : between(2, 150));
  child.kill("SIGKILL");
  const [code, signal] = await exit;
  assert.deepEqual({ code, signal }, { code: null, signal: "SIGKILL" }, "a writer ended by itself");
}

async function scan(store) {
  const found = new Map();
  for await (const id of store.ids()) {
    const one = await store.get(id);
    assert.notEqual(one, null, "an id without a session");
    found.set(id, one);
  }
  return found;
}

/** The user index has exactly the live sessions of each user. */
async function checkIndex(store, found, users) {
  const byId = (one, other) => (one.sessionId < other.sessionId ? -1 : 1);
  const all = [...found.values()].sort(byId);
  for (const user of users) {
    const indexed = (await store.getByUser(user)).sort(byId);
    assert.deepEqual(
      indexed,
      all.filter((one) => one.userId === user),
    );
  }
}

/** A store whose writers are killed, round by round. */
class Scene {
  expected = new Expected();
  kills = 0;
  slowest = 0;
  #users = new Set();
  #mine = 0;

  constructor(place, { secret, isKeptOpen }) {
    this.place = place;
    this.options = { path: place.next(), ...(secret && { secret }) };
    this.store = isKeptOpen ? new FileStore(this.options) : null;
  }

  async round(writers) {
    const logs = [];
    const lives = Array.from({ length: writers }, async (_, at) => {
      const log = this.place.next();
      logs.push(log);
      const options = { ...this.options, sweepInterval: 20 };
      await writeAndDie({ options, name: `w${at}`, log, atOnce: between(1, 32) });
      this.kills++;
      // Survivors must not wait for killed processes.
      if (this.store) await this.#write(this.store);
    });
    await Promise.all(lives);
    const store = this.store ?? new FileStore(this.options);
    await this.#write(store);
    await this.#check(store, logs.map(readLog));
    if (store !== this.store) await store.close();
  }

  /** Verifies every page and record. */
  async end() {
    const store = this.store ?? new FileStore(this.options);
    assert.deepEqual((await store.verify()).problems, []);
    await store.close();
  }

  async #write(store) {
    const mine = session(`bystander-${++this.#mine}`, { userId: "everyone", version: 1, blob: "" });
    const began = performance.now();
    await store.create(mine);
    this.slowest = Math.max(this.slowest, performance.now() - began);
    const { sessionId, userId: user, expires } = mine;
    this.expected.settle([[sessionId, { user, expires, version: 1, size: 0 }]]);
  }

  async #check(store, logs) {
    for (const changes of logs.flatMap(({ ended }) => ended)) this.expected.settle(changes);
    const found = await scan(store);
    this.expected.compare(
      found,
      logs.flatMap(({ pending }) => pending),
    );
    for (const one of this.expected.sessions.values()) if (one?.userId) this.#users.add(one.userId);
    await checkIndex(store, found, this.#users);
    assert.equal(await store.size(), found.size);
  }
}

describe("processes that are killed while they write", { skip }, () => {
  it("lose nothing, bring nothing back and block no process", async () => {
    const places = [makePlace(), makePlace({ onDisk: true })];
    const totals = { rounds: 0, kills: 0, acknowledged: 0, lost: 0, revived: 0, torn: 0, slowest: 0 };
    for (let turn = 0; totals.rounds < ROUNDS; turn++) {
      const kind = kindOf(turn);
      const scene = new Scene(places[Number(kind.onDisk)], kind);
      for (let round = 0; round < ROUNDS_OF_A_STORE && totals.rounds < ROUNDS; round++) {
        await scene.round(2 + (round % 2));
        totals.rounds++;
      }
      await scene.end();
      totals.kills += scene.kills;
      totals.slowest = Math.max(totals.slowest, scene.slowest);
      for (const name of ["acknowledged", "lost", "revived", "torn"]) totals[name] += scene.expected[name];
    }
    const { rounds, kills, acknowledged, lost, revived, torn, slowest } = totals;
    console.log(
      `crash rounds: ${rounds}, kills: ${kills}, acknowledged writes checked: ${acknowledged}, ` +
        `lost: ${lost}, revived: ${revived}`,
    );
    assert.deepEqual({ lost, revived, torn }, { lost: 0, revived: 0, torn: 0 });
    assert.ok(acknowledged > 10 * kills, "the writers hardly wrote");
    assert.ok(slowest < 9000, `a write after a kill took ${slowest} ms`);
  });
});
