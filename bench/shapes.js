"use strict";

const { loginData } = require("./connect/session.js");

/**
 * The shapes of sessions, and the stores that are compared with each, ours first. `dataOf` returns the fields other
 * than id, user and expiry.
 */
const SHAPES = {
  fluidauth: {
    label: "FluidAuth's 3 fields",
    dataOf: () => undefined,
    stores: ["native", "map", "express", "memorystore"],
  },
  express: {
    label: "500 B",
    // With separate strings, as from a database or a request: a literal is one string for all sessions.
    dataOf: () => JSON.parse(JSON.stringify(loginData())),
    stores: ["native", "connect", "map", "express", "memorystore"],
  },
};

const SHAPE_NAMES = Object.keys(SHAPES);
const shapeLabel = (shape) => SHAPES[shape].label;

module.exports = { SHAPES, SHAPE_NAMES, shapeLabel };
