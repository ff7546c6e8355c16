import { describe, it, vi } from "vitest";
import cases from "../cases/index.js";
import { fakeOf } from "./fake.mjs";

cases.connectSuite({ describe, it, fake: fakeOf(vi) });
