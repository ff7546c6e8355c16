"use strict";

const { atLeast, atMost } = require("../../limits.js");
const { median, medianRatio } = require("../../stats.js");
const { BEFORE, OURS } = require("../stores.js");

const LONGEST_CALL = 150;

/** Adds the target of one store against another if both were measured. */
function against(targets, { rows, figure, ours = OURS, peer = BEFORE }, text, target, limit) {
  const valuesOf = (name) => {
    const rounds = rows.find(({ store }) => store === name)?.rounds;
    return figure ? rounds?.map((round) => round[figure]) : rounds;
  };
  if (!valuesOf(peer)) return;
  targets.push(target(text, limit, "x", medianRatio(valuesOf(ours), valuesOf(peer))));
}

function judgeCalls({ touches, everysec, two }) {
  const targets = [];
  const perSecond = (stage, more) => ({ rows: stage.rows, figure: "perSecond", ...more });
  if (touches) {
    const text = `file, durable touches, ${touches.inFlight} in flight, against --before`;
    against(targets, perSecond(touches), text, atLeast, 4);
  }
  if (everysec) {
    const text = `file, "everysec" creates, ${everysec.inFlight} in flight, against MemoryStore`;
    against(targets, perSecond(everysec, { ours: "everysec", peer: "memory" }), text, atLeast, 0.4);
  }
  if (two) {
    const text = `file, creates of two processes, ${two.inFlight} in flight each, against --before`;
    against(targets, perSecond(two), text, atLeast, 0.95);
  }
  return targets;
}

function judgeGets({ gets }) {
  const targets = [];
  if (!gets) return targets;
  const { empty, filled } = gets;
  against(targets, { rows: empty }, "file, await get, log empty, against --before", atMost, 1.05);
  if (filled) {
    const inLog = Math.min(...filled[0].inLog);
    against(targets, { rows: filled }, `file, await get, ${inLog} in the log, against --before`, atMost, 1.2);
  }
  return targets;
}

function judgeSwitch({ switches = [] }) {
  return switches
    .filter(({ store }) => store === OURS)
    .flatMap(({ isFull, rounds }) => {
      const medianOf = (figure) => median(rounds.map((round) => round[figure]));
      const text = isFull ? `a log of ${medianOf("inLog")} sessions` : "an empty log";
      return [
        atMost(`file, switch to shared mode, ${text}`, isFull ? 5000 : 50, " ms", medianOf("took")),
        atMost(`file, longest get in that time, ${text}`, LONGEST_CALL, " ms", medianOf("longest")),
      ];
    });
}

function judgeDisk({ written }) {
  const rounds = written?.rows.find(({ store }) => store === OURS).rounds;
  if (!rounds) return [];
  const kilobytes = (figure) => median(rounds.map((round) => round[figure])) / 1000;
  return [
    atMost("file, written for a create, 1 in flight", 10, " kB", kilobytes("bytes")),
    atMost("file, written for a create, 1 in flight, with close", 10, " kB", kilobytes("closed")),
  ];
}

function judgeLoad({ load }) {
  const ours = load?.rows.find(({ store }) => store === OURS);
  if (!ours) return [];
  const longest = median(ours.runs.map((run) => run.longest));
  return [atMost(`file, longest call in ${load.seconds} s of full load`, LONGEST_CALL, " ms", longest)];
}

/** Judges the redo log. A skipped stage has no targets. */
const judge = (log) => [judgeCalls, judgeGets, judgeSwitch, judgeDisk, judgeLoad].flatMap((of) => of(log));

module.exports = { against, judge };
