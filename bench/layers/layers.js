"use strict";

const native = require("../../binding.js");
const codec = require("../../lib/session-codec.js");
const { farOff, userOf } = require("../sessions.js");

const AT_ONCE = 1000;
const AWAIT = "awaiting it";
const READING = "reading the id, and finding nothing in an empty store";
const METHOD = "the method, and its promise";
const SESSION = "making the session, and the text of its expiry";

const sessionOf = (sessionId, number) => ({
  sessionId,
  userId: userOf(number),
  expires: new Date(farOff(number)).toISOString(),
});

/** Calls sequentially for each id. */
const sync = (call) => (ids, first) => {
  for (let i = 0; i < ids.length; i++) call(ids.at(i), first + i);
};

const awaited = (call) => async (ids, first) => {
  for (let i = 0; i < ids.length; i++) await call(ids.at(i), first + i);
};

/** Awaits many calls together. */
const started = (call) => async (ids, first) => {
  for (let from = 0; from < ids.length; from += AT_ONCE) {
    const wave = [];
    for (let i = from; i < Math.min(from + AT_ONCE, ids.length); i++) wave.push(call(ids.at(i), first + i));
    await Promise.all(wave);
  }
};

/**
 * The layers of each call: `{ [call]: { text, loop, of?, before?, after? }[] }`. The loop of a layer does everything
 * that the previous one does. `of` selects the ids: live sessions by default, `fresh` ids, which `before` may create
 * and `after` remove outside of the measurement, or `absent` ids.
 *
 * `store`: an object of the class. `handle`: a native store with the same content, for calls without the class.
 * `empty`: a native store without sessions.
 */
function layersOf(store, handle, empty) {
  let clock = 0;
  const later = () => farOff(clock++);

  const createFresh = sync((id, number) => {
    for (const one of [store, handle]) create(one, sessionOf(id, number));
  });
  const removeFresh = sync((id) => {
    native.remove(handle, id);
    store.delete(id);
  });
  function create(to, session) {
    const { sessionId, userId, expires, userFirst } = codec.readPlain(session);
    return to === store ? store.create(session) : native.create(to, sessionId, userId, expires, userFirst);
  }
  function update(session) {
    const { sessionId, userId, expires, userFirst } = codec.readPlain(session);
    return native.update(handle, sessionId, userId, expires, userFirst);
  }

  const id = { text: "making the id string", loop: sync((id) => id.length) };
  const crossing = { text: "a call of the addon, of the store alone", loop: sync(() => native.wake(handle)) };
  const session = { text: SESSION, loop: sync(sessionOf) };
  const reading = { text: "looking what is in it", loop: sync((id, n) => codec.readPlain(sessionOf(id, n))) };
  const fresh = { of: "fresh", after: removeFresh };
  const gone = { of: "fresh", before: createFresh, after: removeFresh };

  return {
    get: [
      id,
      crossing,
      { text: READING, of: "absent", loop: sync((id) => native.get(empty, id)) },
      { text: "finding nothing among many", of: "absent", loop: sync((id) => native.get(handle, id)) },
      { text: "finding it, and copying to JavaScript", loop: sync((id) => native.get(handle, id)) },
      { text: "making the object", loop: sync((id) => codec.decode(id, native.get(handle, id))) },
      { text: METHOD, loop: started((id) => store.get(id)) },
      { text: AWAIT, loop: awaited((id) => store.get(id)) },
    ],
    touch: [
      id,
      crossing,
      { text: READING, of: "absent", loop: sync((id) => native.touch(empty, id, later())) },
      {
        text: "finding nothing among many",
        of: "absent",
        loop: sync((id) => native.touch(handle, id, later())),
      },
      { text: "finding it, and moving its expiry", loop: sync((id) => native.touch(handle, id, later())) },
      {
        text: "making a Date, and reading it",
        loop: sync((id) => native.touch(handle, id, codec.toMillis(new Date(later())))),
      },
      { text: METHOD, loop: started((id) => store.touch(id, new Date(later()))) },
      { text: AWAIT, loop: awaited((id) => store.touch(id, new Date(later()))) },
    ],
    update: [
      id,
      session,
      reading,
      { text: "the addon's call", loop: sync((id, number) => update(sessionOf(id, number))) },
      { text: METHOD, loop: started((id, number) => store.update(id, sessionOf(id, number))) },
      { text: AWAIT, loop: awaited((id, number) => store.update(id, sessionOf(id, number))) },
    ],
    create: [
      id,
      session,
      reading,
      {
        text: "the addon's call",
        ...fresh,
        loop: sync((id, number) => create(handle, sessionOf(id, number))),
      },
      { text: METHOD, ...fresh, loop: started((id, number) => store.create(sessionOf(id, number))) },
      { text: AWAIT, ...fresh, loop: awaited((id, number) => store.create(sessionOf(id, number))) },
    ],
    delete: [
      id,
      crossing,
      { text: READING, of: "absent", loop: sync((id) => native.remove(empty, id)) },
      { text: "finding nothing among many", of: "absent", loop: sync((id) => native.remove(handle, id)) },
      { text: "finding it, and removing it", ...gone, loop: sync((id) => native.remove(handle, id)) },
      { text: METHOD, ...gone, loop: started((id) => store.delete(id)) },
      { text: AWAIT, ...gone, loop: awaited((id) => store.delete(id)) },
    ],
  };
}

module.exports = { layersOf, sessionOf };
