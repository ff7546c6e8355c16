"use strict";

const { loginData } = require("./connect/session.js");

/**
 * What sessions hold, and the stores that are compared with it, ours first. Of `dataOf` are the fields besides the
 * id, the user and the expiry.
 */
const SHAPES = {
  fluidauth: {
    label: "FluidAuth's 3 fields",
    dataOf: () => undefined,
    stores: ["native", "map", "express", "memorystore"],
  },
  express: {
    label: "500 B",
    // With strings of its own, as those that a database or a request brings: a literal is one for all sessions.
    dataOf: () => JSON.parse(JSON.stringify(loginData())),
    stores: ["native", "connect", "map", "express", "memorystore"],
  },
};

const SHAPE_NAMES = Object.keys(SHAPES);
const shapeLabel = (shape) => SHAPES[shape].label;

module.exports = { SHAPES, SHAPE_NAMES, shapeLabel };
