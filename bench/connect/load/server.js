"use strict";

// A process for one store.
const { serve } = require("../../serve.js");
const { openStore } = require("../stores.js");
const { openApp } = require("./app.js");

serve({ open: ({ store, directory, core }) => openApp(openStore(store, directory), core) });
