"use strict";

// `npm run simulate -- --mutants [<max seeds> [<first seed>]]`: checks that the simulators of the redo log and of
// RedisStore find bugs. `npm test` calls it with `--common-mutants`, which skips mutants that take thousands of seeds
// to find.
//
// Each mutant removes one safeguard from the code, and its simulator has to find a violation within a limited number of
// seeds. All mutants are in one copy of the sources, which is built once. `SIM_MUTANT` names the active one.
const { spawnSync } = require("node:child_process");
const fs = require("node:fs");
const path = require("node:path");
const { ROOT } = require("./sources");

/** The number of seeds without a mutant, to check that the copy behaves like the original. */
const CONTROL_SEEDS = 100;
const CRATE = "fluidauth-native-store";
const COPY = `${CRATE}-mutants`;
// Optimise only the crate itself, so that it shares its dependencies with the other tests.
const OPTIMISED = `profile.test.package.${COPY}.opt-level=2`;
const CARGO = ["test", "--locked", "--no-default-features", "--lib", "--config", OPTIMISED];
/** Matches the attribute of a module's tests. Without these tests the copy builds in a quarter of the time. */
const TESTS = /#\[cfg\((?:test|all\(test, [^\]]*\))\)\](?=\s+(?:pub(?:\([^)]*\))? )?mod tests\b)/g;
const OUTPUT = { encoding: "utf8", maxBuffer: 1 << 28 };
/** The maximum time of a mutant, in minutes. */
const MAX_MINUTES = 10;
const COPIED = ["Cargo.toml", "Cargo.lock", "build.rs", "src", "tests", "benches"];
const FILE = "src/store/file";
const REDIS = "src/store/redis";

/**
 * The mutants. `kind` is one of:
 * - `rule`: a rule of the log, or of the user index and the connections, that is broken.
 * - `review`: a hole that a review of the design found, without its fix.
 * - `code`: a bug that was in the code until the simulator found it.
 *
 * `isRare`: takes thousands of seeds to find.
 *
 * `edits` are pairs of a text, which must occur exactly once in the file, and its replacement. In the replacement,
 * `MUTANT` is true while the mutant is active.
 */
const MUTANTS = [
  {
    name: "sync-waits-for-drain",
    kind: "review",
    what: "With everysec, the log is not synced during a drain.",
    file: `${FILE}/redo/syncer.rs`,
    edits: [
      [
        "let is_due = ",
        `let _base = if MUTANT { Some(super::points::lock(&self.base)) } else { None };
         let is_due = `,
      ],
    ],
  },
  {
    name: "overlay-before-sync",
    kind: "rule",
    what: "The overlay has a batch before the log is synced.",
    file: `${FILE}/redo/engine.rs`,
    edits: [
      [
        "Durability::Commit => ring.sync(),",
        `Durability::Commit => {
           if MUTANT {
             self.overlay().gate().enter(ring.written());
             ring.enter();
           }
           ring.sync()
         }`,
      ],
    ],
  },
  {
    name: "drain-unsynced",
    kind: "rule",
    what: "A drain takes rows that are not synced.",
    file: `${FILE}/redo/drain.rs`,
    edits: [
      [
        "if ring.durable() < last && !plan.is_whole {",
        "if ring.durable() < last && !plan.is_whole && !MUTANT {",
      ],
    ],
  },
  {
    name: "remove-before-commit",
    kind: "rule",
    what: "Rows leave the overlay before the data file has them.",
    file: `${FILE}/redo/drain.rs`,
    edits: [
      [
        "let drained = environment.change(|rows| {",
        `if MUTANT {
           entries.iter().for_each(|(key, entry)| overlay.gate().remove_drained(key, entry));
         }
         let drained = environment.change(|rows| {`,
      ],
    ],
  },
  {
    name: "data-file-before-overlay",
    kind: "rule",
    what: "A reader opens its view of the data file before it looks at the overlay.",
    file: `${FILE}/reads.rs`,
    edits: [
      [
        "if let Some(row) = self.overlay.get(key) {\n            self.held",
        `let early = if MUTANT { Some(self.read()?) } else { None };
         if MUTANT {
           super::redo::points::sleep(std::time::Duration::ZERO);
         }
         if let Some(row) = self.overlay.get(key) {
            self.held`,
      ],
      [
        "let txn = self.read()?;\n        Ok(self.get(txn.tables().sessions, &txn, key)?.map(read))",
        `let txn = match early { Some(txn) => txn, None => self.read()? };
         Ok(self.get(txn.tables().sessions, &txn, key)?.map(read))`,
      ],
    ],
  },
  {
    name: "recover-without-rewrite",
    kind: "rule",
    isRare: true,
    what: "A recovery does not rewrite the records that it has read.",
    file: `${FILE}/redo/ring.rs`,
    edits: [["while at < to {", "while at < to && !MUTANT {"]],
  },
  {
    name: "error-before-log-end",
    kind: "rule",
    what: "A batch is reported as failed while the data file still names the log.",
    file: `${FILE}/redo/engine.rs`,
    edits: [
      [
        "return fail(match self.resolve_log(state) {",
        `if MUTANT {
           return fail(error);
         }
         return fail(match self.resolve_log(state) {`,
      ],
      [
        "let _ = self.resolve_log(state);",
        `if !MUTANT {
           let _ = self.resolve_log(state);
         }`,
      ],
    ],
  },
  {
    name: "share-needed-log",
    kind: "review",
    what: "A process shares a store whose log was not recovered.",
    file: `${FILE}/redo/join.rs`,
    edits: [["if !needs_log()? {", "if !needs_log()? || MUTANT {"]],
  },
  {
    name: "view-before-gate",
    kind: "review",
    what: "The writer's view of the data file is older than its look at the overlay.",
    file: `${FILE}/redo/engine.rs`,
    edits: [
      [
        "let mut gate = self.overlay().gate();",
        `let early = if MUTANT { Some(environment.read()?) } else { None };
         if MUTANT {
           points::sleep(Duration::ZERO);
         }
         let mut gate = self.overlay().gate();`,
      ],
      [
        "let view = environment.read()?;",
        "let view = match early { Some(view) => view, None => environment.read()? };",
      ],
    ],
  },
  {
    name: "pass-survives-clear",
    kind: "review",
    what: "A `clear` does not block a drain, which then commits rows that it took before the `clear`.",
    file: `${FILE}/redo/engine.rs`,
    edits: [
      [
        "let mut base = points::lock(&self.base);",
        "let base = if MUTANT { None } else { Some(points::lock(&self.base)) };",
      ],
      [
        "base.uncertain_clear = Some(end);",
        "base.unwrap_or_else(|| points::lock(&self.base)).uncertain_clear = Some(end);",
      ],
    ],
  },
  {
    name: "clear-overlay-first",
    kind: "review",
    what: "A `clear` drops the overlay before its commit.",
    file: `${FILE}/redo/engine.rs`,
    edits: [
      [
        "points::reach(Point::BeforeClear);",
        `points::reach(Point::BeforeClear);
         if MUTANT {
           self.overlay().gate().clear();
           points::sleep(Duration::ZERO);
         }`,
      ],
    ],
  },
  {
    name: "unseeded-checksum",
    kind: "review",
    what: "The checksums do not depend on the log's id.",
    file: `${FILE}/redo/format.rs`,
    edits: [
      [
        "hasher.update(id);",
        `if !MUTANT {
           hasher.update(id);
         }`,
      ],
    ],
  },
  {
    name: "failed-log-end-not-done",
    kind: "review",
    what: "A failed commit that removes the log counts as not done.",
    file: `${FILE}/redo/modes.rs`,
    edits: [
      [
        "*environment.log.lock() = KnownLog::Uncertain;",
        `if !MUTANT {
           *environment.log.lock() = KnownLog::Uncertain;
         }`,
      ],
    ],
  },
  {
    name: "failed-log-begin-not-done",
    kind: "review",
    what: "A failed commit that starts a log counts as not done.",
    file: `${FILE}/redo/modes.rs`,
    edits: [
      [
        "Err(_) => KnownLog::Uncertain,",
        "Err(_) => if MUTANT { KnownLog::None } else { KnownLog::Uncertain },",
      ],
    ],
  },
  {
    name: "write-in-doubt",
    kind: "code",
    isRare: true,
    what: "The rest of a batch is written while it is unknown which log the store has.",
    file: `${FILE}/redo/engine.rs`,
    edits: [
      [
        "if let Err(error) = self.resolve_log(state) {\n                outcomes.extend(",
        "if !MUTANT && let Err(error) = self.resolve_log(state) {\n                outcomes.extend(",
      ],
    ],
  },
  {
    name: "name-not-synced",
    kind: "code",
    isRare: true,
    what: "A log starts in a file whose name may not be durable.",
    file: `${FILE}/redo/ring.rs`,
    edits: [
      [
        "files.sync_name()?;",
        `if !MUTANT {
           files.sync_name()?;
         }`,
      ],
    ],
  },
  {
    name: "failed-log-not-drained",
    kind: "code",
    isRare: true,
    what: "Calls that list all sessions miss those in a failed log.",
    file: `${FILE}/redo/drain.rs`,
    edits: [["if self.must_resolve_log() {", "if self.must_resolve_log() && !MUTANT {"]],
  },
  {
    name: "count-while-unsure",
    kind: "code",
    what: "Rows are counted while the overlay may be wrong about which of them are in the data file, too.",
    file: `${FILE}/redo/engine.rs`,
    edits: [["if !self.overlay().is_uncertain() {", "if !self.overlay().is_uncertain() || MUTANT {"]],
  },
  {
    name: "close-without-reset",
    kind: "review",
    what: "An abandoned connection is closed gracefully, so the data that it has sent arrives later.",
    file: `${REDIS}/connection/connector.rs`,
    edits: [["stream.reset_on_drop();", "if !MUTANT { stream.reset_on_drop(); }"]],
  },
  {
    name: "keep-silent-connections",
    kind: "rule",
    what: "A connection without replies is not abandoned.",
    file: `${REDIS}/connection/multiplexed.rs`,
    edits: [["if is_silent || oldest", "if !MUTANT && is_silent || !MUTANT && oldest"]],
  },
  {
    name: "stay-with-replica",
    kind: "rule",
    isRare: true,
    what: "The connection to a server that has become a replica is kept.",
    file: `${REDIS}/routing/router.rs`,
    edits: [['if code == "READONLY" {', 'if code == "READONLY" && !MUTANT {']],
  },
  {
    name: "sent-not-counted",
    kind: "rule",
    what: "An error says that nothing happened, but a server may have run the call.",
    file: `${REDIS}/routing/router.rs`,
    edits: [["let sent = if is_main {", "let sent = if is_main && !MUTANT {"]],
  },
  {
    name: "create-without-stamp",
    kind: "review",
    what: "A creation that is sent again takes its own session for another's.",
    file: `${REDIS}/session/create.rs`,
    edits: [
      [
        "let may_be_stored = || stored == Stored::Perhaps || attempt.is_repeated();",
        "let may_be_stored = || (stored == Stored::Perhaps || attempt.is_repeated()) && !MUTANT;",
      ],
    ],
  },
  {
    name: "order-not-kept",
    kind: "rule",
    what: "Calls of a process on one session run out of order.",
    file: `${REDIS}/worker.rs`,
    edits: [
      ["if let Some(later) = busy.get_mut(id) {", "if let Some(later) = busy.get_mut(id) && !MUTANT {"],
    ],
  },
  {
    name: "remove-young-entries",
    kind: "rule",
    isRare: true,
    what: "An index entry is removed while its session is being created.",
    file: `${REDIS}/session/user_index.rs`,
    edits: [
      [
        "filter(|(_, version)| is_old(context, *version))",
        "filter(|(_, version)| is_old(context, *version) || MUTANT)",
      ],
    ],
  },
  {
    name: "age-by-set-clock",
    kind: "review",
    isRare: true,
    what: "Index entries age when the clock of a machine is set.",
    file: `${REDIS}/time.rs`,
    edits: [
      [
        "(now.min(steady), now.max(steady))",
        "if MUTANT { (now, now) } else { (now.min(steady), now.max(steady)) }",
      ],
    ],
  },
  {
    name: "remove-any-entry-of-ended",
    kind: "rule",
    isRare: true,
    what: "Ending a session removes the index entry of another creation of its id.",
    file: `${REDIS}/session/user_index.rs`,
    edits: [["created == created_field(entry.1)", "MUTANT || created == created_field(entry.1)"]],
  },
  {
    name: "entry-keeps-version",
    kind: "code",
    isRare: true,
    what: "A session is created again before its entry has a new version.",
    file: `${REDIS}/session/commands.rs`,
    edits: [["if existing == ExistingEntry::Renew {", "if existing == ExistingEntry::Renew && !MUTANT {"]],
  },
  {
    name: "entry-not-again",
    kind: "code",
    isRare: true,
    what: "A creation that was sent again leaves the session without the entry that was removed in between.",
    file: `${REDIS}/session/create.rs`,
    edits: [
      [
        "if attempt.is_repeated() && index_is_elsewhere {",
        "if attempt.is_repeated() && index_is_elsewhere && !MUTANT {",
      ],
      ["let version = if attempt.is_repeated() {", "let version = if attempt.is_repeated() && !MUTANT {"],
      [
        "let is_first = stored == Stored::Untried && !attempt.is_repeated();",
        "let is_first = MUTANT || stored == Stored::Untried && !attempt.is_repeated();",
      ],
    ],
  },
  {
    name: "index-not-prolonged",
    kind: "rule",
    isRare: true,
    what: "A touch moves the expiry of a session beyond the expiry of the user index.",
    file: `${REDIS}/session/single.rs`,
    edits: [
      [
        "prolong(context, attempt, &user, member, until).await?;",
        "if !MUTANT { prolong(context, attempt, &user, member, until).await?; }",
      ],
    ],
  },
  {
    name: "scan-once",
    kind: "rule",
    isRare: true,
    what: "A scan of a cluster does not follow migrating slots.",
    file: `${REDIS}/session/scan.rs`,
    edits: [
      [
        "None => before.moves_until(now),",
        "None => if MUTANT { Default::default() } else { before.moves_until(now) },",
      ],
    ],
  },
  {
    name: "stored-is-not-done",
    kind: "code",
    isRare: true,
    what: "An error says that nothing happened, though the session is stored and only its entry was refused.",
    file: `${REDIS}/routing/router.rs`,
    edits: [
      [
        "Ok(Err(error)) => Err(attempt.with_outcome(error)),",
        "Ok(Err(error)) => Err(if MUTANT { error } else { attempt.with_outcome(error) }),",
      ],
    ],
  },
];

const SWITCH = `
/// Whether the process runs this mutant.
pub(crate) fn is_mutant(name: &str) -> bool {
    static NAME: std::sync::LazyLock<String> =
        std::sync::LazyLock::new(|| std::env::var("SIM_MUTANT").unwrap_or_default());
    NAME.as_str() == name
}
`;

/** Returns the position of a text in a file. Throws unless it occurs exactly once. */
function placeOf(text, source, mutant) {
  const count = source.split(text).length - 1;
  if (count !== 1) {
    throw new Error(
      `the mutant ${mutant.name} does not fit ${mutant.file}: its text must occur once, and occurs ${count} times:\n${text}`,
    );
  }
  return source.indexOf(text);
}

/** Returns a source with all mutants of its file. */
function mutate(source, mutants) {
  const places = mutants.flatMap((mutant) => {
    if (!mutant.edits.some(([, replacement]) => replacement.includes("MUTANT"))) {
      throw new Error(`the mutant ${mutant.name} cannot be switched off: no replacement names MUTANT`);
    }
    return mutant.edits.map(([text, replacement]) => ({
      mutant,
      start: placeOf(text, source, mutant),
      end: placeOf(text, source, mutant) + text.length,
      replacement: replacement.replaceAll("MUTANT", `crate::is_mutant("${mutant.name}")`),
    }));
  });
  places.sort((one, other) => one.start - other.start);
  let mutated = "";
  let end = 0;
  for (const [index, place] of places.entries()) {
    if (place.start < end) {
      throw new Error(
        `the mutants ${places[index - 1].mutant.name} and ${place.mutant.name} change the same text`,
      );
    }
    mutated += source.slice(end, place.start) + place.replacement;
    end = place.end;
  }
  return mutated + source.slice(end);
}

/** Returns the mutated content of all files with mutants, by path. */
function mutateAll(root = ROOT, mutants = MUTANTS) {
  const mutated = new Map();
  for (const { file } of mutants) {
    if (mutated.has(file)) continue;
    const source = fs.readFileSync(path.join(root, file), "utf8").replaceAll("\r\n", "\n");
    mutated.set(
      file,
      mutate(
        source,
        mutants.filter((mutant) => mutant.file === file),
      ),
    );
  }
  return mutated;
}

/** Returns the folder of the copy. Always the same path, or cargo would rebuild everything. */
function copyFolder() {
  return path.join(path.resolve(ROOT, process.env.CARGO_TARGET_DIR ?? "target"), "mutants");
}

/** Returns the content of the files of the copy, by path. */
function copiedFiles() {
  const files = new Map();
  const add = (name) => {
    const file = path.join(ROOT, name);
    if (!fs.statSync(file).isDirectory()) files.set(name, fs.readFileSync(file));
    else for (const child of fs.readdirSync(file)) add(`${name}/${child}`);
  };
  COPIED.forEach(add);

  const change = (name, edit) => files.set(name, Buffer.from(edit(files.get(name).toString())));
  for (const [name, source] of mutateAll()) files.set(name, Buffer.from(source));
  for (const name of files.keys()) {
    if (name.endsWith(".rs")) change(name, (source) => source.replace(TESTS, "#[cfg(any())]"));
  }
  change("src/lib.rs", (source) => `#![allow(warnings)]\n${source}${SWITCH}`);
  // Rename the crate: crates with the same name share files in the target folder, and cargo would confuse their builds.
  for (const name of ["Cargo.toml", "Cargo.lock"]) {
    change(name, (source) => {
      const renamed = source.replace(`name = "${CRATE}"`, `name = "${COPY}"`);
      if (renamed === source) throw new Error(`${name} names no crate ${CRATE}`);
      return renamed;
    });
  }
  return files;
}

/** Writes the copy. Unchanged files keep their modification time, so cargo does not rebuild them. */
function writeCopy(folder) {
  fs.mkdirSync(folder, { recursive: true });
  const files = copiedFiles();
  for (const name of fs.readdirSync(folder, { recursive: true })) {
    const file = path.join(folder, name);
    if (fs.statSync(file).isFile() && !files.has(name.split(path.sep).join("/"))) fs.rmSync(file);
  }
  for (const [name, bytes] of files) {
    const file = path.join(folder, name);
    if (fs.existsSync(file) && fs.readFileSync(file).equals(bytes)) continue;
    fs.mkdirSync(path.dirname(file), { recursive: true });
    fs.writeFileSync(file, bytes);
  }
}

/** Builds the tests of the copy. Returns the program, or `undefined` if they do not compile. */
function build(folder) {
  const args = [...CARGO, "--no-run", "--message-format=json-render-diagnostics"];
  const env = { ...process.env, CARGO_TARGET_DIR: path.dirname(folder) };
  const stdio = ["ignore", "pipe", "inherit"];
  const { status, stdout } = spawnSync("cargo", args, { cwd: folder, env, stdio, ...OUTPUT });
  if (status !== 0) return undefined;
  const messages = stdout
    .split("\n")
    .filter(Boolean)
    .map((line) => JSON.parse(line));
  return messages.findLast(({ executable }) => executable).executable;
}

/** Returns the store whose simulator has to find a mutant. */
function storeOf({ file }) {
  return file.startsWith(REDIS) ? "redis" : "file";
}

/** Runs seeds of a store with a mutant. Returns the first seed that violates the contract, and how. */
function simulate(program, store, mutant, seeds, first) {
  const env = {
    ...process.env,
    SIM_MUTANT: mutant,
    SIM_SEEDS: String(seeds),
    SIM_SEED: first,
    SIM_VIOLATIONS: "1",
  };
  const args = [`${store}::sim::tests::fresh_seeds`, "--nocapture"];
  // A mutant may loop forever, and the simulator cannot stop it.
  const limits = { timeout: MAX_MINUTES * 60_000, killSignal: "SIGKILL", ...OUTPUT };
  const { status, signal, stdout, stderr } = spawnSync(program, args, { env, ...limits });
  const found = /^seed (\d+): (.*)$/m.exec(stdout);
  const hasBegun = stdout.includes(`simulating ${seeds} seeds from ${first}\n`);
  if (!hasBegun || (status === 0) === Boolean(found)) {
    const name = mutant || "no mutant";
    throw new Error(`the simulator with ${name} ended with ${status ?? signal}:\n${stdout}\n${stderr}`);
  }
  return found && { seed: BigInt(found[1]), violation: found[2] };
}

/** Runs mutants, and prints a table. Returns whether all were found. */
function run({ withRare, seeds, first }) {
  const folder = copyFolder();
  writeCopy(folder);
  const startedAt = Date.now();
  const seconds = (since) => ((Date.now() - since) / 1000).toFixed(1);
  const program = build(folder);
  if (!program) {
    console.error(`The mutants do not compile. The messages above are about the copy in ${folder}.`);
    return false;
  }
  console.log(`Built in ${seconds(startedAt)} s. Each mutant gets at most ${seeds} seeds, from ${first}.\n`);
  for (const store of ["file", "redis"]) {
    const unchanged = simulate(program, store, "", Math.min(CONTROL_SEEDS, seeds), first);
    if (unchanged) {
      console.error(
        `Without a mutant, seed ${unchanged.seed} of ${store} finds a violation: ${unchanged.violation}`,
      );
      return false;
    }
  }

  const mutants = MUTANTS.filter(({ isRare }) => withRare || !isRare);
  const width = Math.max(...mutants.map(({ name }) => name.length));
  console.log(`${"mutant".padEnd(width)}  kind    seeds needed  seed found  seconds`);
  const survivors = [];
  for (const mutant of mutants) {
    const { name, kind } = mutant;
    const since = Date.now();
    const found = simulate(program, storeOf(mutant), name, seeds, first);
    if (!found) survivors.push(mutant);
    const count = found ? String(found.seed - BigInt(first) + 1n) : "-";
    const cells = [
      count.padStart(12),
      String(found?.seed ?? "none").padStart(10),
      seconds(since).padStart(7),
    ];
    console.log(`${name.padEnd(width)}  ${kind.padEnd(6)}  ${cells.join("  ")}`);
  }
  const found = mutants.length - survivors.length;
  console.log(`\n${found} of ${mutants.length} mutants found in ${seconds(startedAt)} s`);
  for (const { name, what, file } of survivors) {
    console.error(`${seeds} seeds do not find ${name} (${what} ${file})`);
  }
  return survivors.length === 0;
}

module.exports = { MUTANTS, mutate, mutateAll, run };
