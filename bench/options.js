"use strict";

const { spawnSync } = require("node:child_process");
const { existsSync } = require("node:fs");
const os = require("node:os");
const path = require("node:path");
const { parseArgs } = require("node:util");

const REDIS_SERVERS = ["plain", "tls", "cluster"];

const usage = (parts) => `Usage: npm run bench -- [options]

  --quick            less of everything: some three minutes instead of an hour
  --part <parts>     some parts only, with commas between them: ${parts.join(", ")}
  --before <folder>  an older version of this package, unpacked and with its addon: the part \`file\` compares with it
  --redis-servers <kinds>  what the part \`redis\` is measured on, with commas between them: plain (the default), tls, cluster
  --race-rounds <n>  how often the part \`connect\` lets a logout overtake a request, for each way that this ends
  --scale-rows <rows>  what the part \`scale\` measures, with commas between them, each as store:sessions:bytes of app data,
                     such as memory:10000000:0; by default all that its model is made from and checked with
  --json <file>      writes all that was measured to a file as well
  --charts <dir>     draws what was measured; charts of what was not are left as they are
  --dir <dir>        where the stores in files are made and removed again, by default in the directory for
                     temporary files; they take some 6 GB, or a tenth with --quick
  --help             prints this`;

const OPTIONS = {
  quick: { type: "boolean" },
  part: { type: "string" },
  before: { type: "string" },
  "race-rounds": { type: "string" },
  "scale-rows": { type: "string" },
  "redis-servers": { type: "string", default: "plain" },
  json: { type: "string" },
  charts: { type: "string" },
  dir: { type: "string", default: os.tmpdir() },
  help: { type: "boolean" },
};

const LOADS = "if (!require(process.argv[1]).FileStore) throw new Error('it has no FileStore')";

/** Returns the folder of an older package. Throws if that does not load. */
function packageIn(given) {
  const folder = path.resolve(given);
  const { status, stderr } = spawnSync(process.execPath, ["-e", LOADS, folder], { encoding: "utf8" });
  if (status === 0) return folder;
  const [, reason = "it does not load"] = /^\w*Error: (.*)$/m.exec(stderr) ?? [];
  throw new Error(`--before must be the folder of an unpacked package; got ${folder}: ${reason}`);
}

/** Returns the items of a list that an option selects, in the order of the list. */
function chosen(option, given, all) {
  const asked = given.split(",").map((name) => name.trim());
  const unknown = asked.find((name) => !all.includes(name));
  if (unknown !== undefined) throw new Error(`${option} must be of ${all.join(", ")}; got ${unknown}`);
  return all.filter((name) => asked.includes(name));
}

const SCALE_ROW = /^(memory|file|redis):([1-9]\d{3,}):(0|[1-9]\d{1,3})$/;

/** Parses the rows to measure: `{ store, size, content }[]`. */
function scaleRows(given) {
  return given.split(",").map((text) => {
    const [, store, size, content] = SCALE_ROW.exec(text.trim()) ?? [];
    if (store !== undefined) return { store, size: Number(size), content: Number(content) };
    throw new Error(
      "--scale-rows must be of memory, file or redis, sessions from 1000 and bytes from 10 to 9999 or 0, " +
        `such as memory:10000000:0; got ${text}`,
    );
  });
}

/** Parses the command line. Ends the process if it is wrong. */
function readOptions(parts) {
  try {
    const { values } = parseArgs({ options: OPTIONS });
    if (values.help) {
      console.log(usage(parts));
      return process.exit(0);
    }
    const { quick = false, part, json, charts, dir, before, "race-rounds": raceRounds } = values;
    if (raceRounds !== undefined && !/^[1-9]\d*$/.test(raceRounds)) {
      throw new Error(`--race-rounds must be a whole number from 1; got ${raceRounds}`);
    }
    if (!existsSync(dir)) throw new Error(`--dir must be a directory; there is no ${dir}`);
    const names = part === undefined ? parts : chosen("--part", part, parts);
    const redisServers = chosen("--redis-servers", values["redis-servers"], REDIS_SERVERS);
    return {
      quick,
      names,
      json,
      charts,
      dir,
      before: before && packageIn(before),
      raceRounds: raceRounds && Number(raceRounds),
      redisServers,
      scaleRows: values["scale-rows"] && scaleRows(values["scale-rows"]),
    };
  } catch (error) {
    console.error(`${error.message}\n\n${usage(parts)}`);
    return process.exit(1);
  }
}

module.exports = { readOptions };
