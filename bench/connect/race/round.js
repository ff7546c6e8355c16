"use strict";

const { once } = require("node:events");
const http = require("node:http");
const { json } = require("node:stream/consumers");

/** Asks a server, and gives what it answers and the cookie that it sets. */
async function ask(address, path, cookie) {
  // Each on a connection of its own, as express-session cuts that of a request whose session it fails to save.
  const request = http.get(address + path, { agent: false, headers: cookie ? { cookie } : {} });
  const [answer] = await once(request, "response");
  const body = await json(answer);
  if (answer.statusCode !== 200) throw new Error(`${path}: status ${answer.statusCode}`);
  return { ...body, cookie: answer.headers["set-cookie"]?.[0].split(";", 1)[0] };
}

/**
 * A request that has loaded its session waits; meanwhile a logout is answered, if there is one; then the request goes
 * on, and has changed the session or not.
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

/** Fails unless a session that nobody ends is there afterwards: in a store that saves nothing, none would come back. */
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
