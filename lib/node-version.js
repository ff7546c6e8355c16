"use strict";

const OLDEST = 20;

/** Returns why this Node.js version is not supported. This file must parse in Node.js 14. */
function faultOfNode() {
  const { node } = process.versions;
  if (Number.parseInt(node, 10) >= OLDEST) return undefined;
  return `it needs Node.js ${OLDEST} or later, and this is Node.js ${node}`;
}

module.exports = { faultOfNode };
