"use strict";

const { table, whole } = require("../table.js");
const { capacityOf, planFile, planMemory, planRedis, trafficOf } = require("./model.js");

const UNITS = [
  [1e12, "T"],
  [1e9, "G"],
  [1e6, "M"],
  [1e3, "k"],
];

/** Formats three digits and a prefix: "16.1 G". */
function short(number) {
  const [size, prefix] = UNITS.find(([least]) => number >= least) ?? [1, ""];
  const text = String(Number((number / size).toPrecision(3)));
  return prefix === "" ? text : `${text} ${prefix}`;
}

const bytes = (number) => {
  const text = short(number);
  return /[kMGT]$/.test(text) ? `${text}B` : `${text} B`;
};

function seconds(number) {
  if (number < 1) return `${Number((1000 * number).toPrecision(2))} ms`;
  return number < 600 ? `${Number(number.toPrecision(2))} s` : `${whole(number / 60)} min`;
}

const percent = (share) => `${Number((100 * share).toPrecision(2))} %`;

/** One line per figure, one column per number of sessions. */
function lines(sizes, figures, planOf) {
  const plans = sizes.map(planOf);
  return Object.entries(figures).map(([label, show]) => [label, ...plans.map(show)]);
}

const machinesText = ({ share, first }) =>
  share <= 1
    ? `yes, ${percent(share)} of its ${first}`
    : `no, ${Number(share.toPrecision(2))} times its ${first}`;

/** The tables of the document: `{ title, body }[]`. */
function planTables(costs, choices, sizes, content) {
  const of = (plan) => (sessions) => plan(costs, choices, { sessions, content });
  const head = ["", ...sizes.map((size) => `${short(size)} sessions`)];
  const show = (figures, planOf) => table(head, lines(sizes, figures, planOf), 1);
  const capacity = (plan) => short(capacityOf(plan, costs, choices, content));
  return [
    {
      title: `The load: sessions of three fields and ${content} B of app data.`,
      body: show(
        {
          "gets a second": ({ gets }) => short(gets),
          "touches a second": ({ touches }) => short(touches),
          "creates a second": ({ creates }) => short(creates),
        },
        (sessions) => trafficOf(choices, sessions),
      ),
    },
    {
      title: `MemoryStore, one process: it takes ${capacity(planMemory)} sessions of this load.`,
      body: show({ memory: (plan) => bytes(plan.bytes), "does it fit": machinesText }, of(planMemory)),
    },
    {
      title: `FileStore, one machine: it takes ${capacity(planFile)} sessions of this load.`,
      body: show(
        {
          file: (plan) => bytes(plan.bytes),
          "does it fit": machinesText,
          "open until the first get": (plan) => seconds(plan.open / 1000),
          "written to the disk a second": (plan) => bytes(plan.writtenPerSecond),
          "copy of a backup": (plan) => seconds(plan.restoreSeconds),
        },
        of(planFile),
      ),
    },
    {
      title: "RedisStore:",
      body: show(
        {
          "memory of the primaries": (plan) => bytes(plan.bytes),
          "server cores for the calls": (plan) => Number(plan.cores.toPrecision(2)).toString(),
          primaries: (plan) => String(plan.shards),
          "servers, with replicas": (plan) => String(plan.servers),
          machines: (plan) => String(plan.machines),
          "full first": (plan) => plan.first,
          "failover: sessions of the primary": (plan) => short(plan.failover.sessions),
          "failover: calls that meet no primary": (plan) => short(plan.failover.calls),
          "failover: writes that may be lost": (plan) => short(plan.failover.writesAtRisk),
          "failover: copy to a new replica": (plan) => seconds(plan.failover.resyncSeconds),
        },
        of(planRedis),
      ),
    },
  ];
}

module.exports = { planTables };
