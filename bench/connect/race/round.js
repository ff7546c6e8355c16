"use strict";

const { once } = require("node:events");
const http = require("node:http");
const { json } = require("node:stream/consumers");

/** Makes a request. Resolves to the response and its cookie. */
async function ask(address, path, cookie) {
  // Use a new connection each time: express-session closes it if it fails to save the session.
  const request = http.get(address + path, { agent: false, headers: cookie ? { cookie } : {} });
  const [answer] = await once(request, "response");
  const body = await json(answer);
  if (answer.statusCode !== 200) throw new Error(`${path}: status ${answer.statusCode}`);
  return { ...body, cookie: answer.headers["set-cookie"]?.[0].split(";", 1)[0] };
}

/**
 * A request loads its session and waits. If `logsOut`, a logout completes. Then the request continues, with or without
 * a change of the session.
 */
async function outlive({ slow, other }, { change, logsOut }) {
  const { sid, cookie } = await ask(slow, "/login");
  const key = encodeURIComponent(sid);
  const answered = ask(slow, change ? "/slow?change=1" : "/slow", cookie);
  await ask(slow, `/reached/${key}`);
  if (logsOut) await ask(other, "/logout", cookie);
  await ask(slow, `/open/${key}`);
  const { user } = await answered;
  if (!user) throw new Error("the slow request had no session");
  const me = await ask(slow, "/me", cookie);
  const { stored } = await ask(slow, `/stored/${key}`);
  return { isBack: stored || me.user !== undefined, changed: me.changed === true };
}

/** Fails unless a session without a logout is saved. In a store that saves nothing, none would come back. */
async function checkApp(servers, change) {
  const { isBack, changed } = await outlive(servers, { change, logsOut: false });
  if (!isBack || changed !== change) throw new Error("a session that nobody ended was not saved");
}

/** Whether a session came back. */
async function race(servers, change) {
  const { isBack } = await outlive(servers, { change, logsOut: true });
  return isBack;
}

module.exports = { checkApp, race };
