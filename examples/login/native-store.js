"use strict";

// The one place that says where the package is: in your app this is require("@fluidauth/native-store").
module.exports = require("../..");
