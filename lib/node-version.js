"use strict";

const OLDEST = 20;

/** What is wrong with the Node.js that runs this. Node.js 14 can parse this file. */
function faultOfNode() {
  const { node } = process.versions;
  if (Number.parseInt(node, 10) >= OLDEST) return undefined;
  return `it needs Node.js ${OLDEST} or later, and this is Node.js ${node}`;
}

module.exports = { faultOfNode };
