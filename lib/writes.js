"use strict";

const native = require("./native.js");
const { fromNative, makeError } = require("./errors.js");

// What goes on after a call is code of the app: of so many at most before the event loop may turn.
const AT_ONCE = 256;

/** A call that is under way, and then what became of it. */
class Call {
  #resolve;
  #reject;
  #read;
  #given;
  #result;
  #error;

  constructor(resolve, reject, read, given) {
    this.#resolve = resolve;
    this.#reject = reject;
    this.#read = read;
    this.#given = given;
  }

  fill(result) {
    this.#result = result;
    return this;
  }

  refuse(error) {
    this.#error = error;
    return this;
  }

  end() {
    if (this.#error !== undefined) return this.#reject(this.#error);
    try {
      this.#resolve(this.#read(this.#result, this.#given));
    } catch (error) {
      this.#reject(fromNative(error));
    }
  }
}

/** The calls of one store that are under way: each is known by the ticket that its native call gave. */
class Writes {
  #store;
  #waiting = [];
  #ended = [];
  #isKicking = false;
  #isResting = false;
  #isEager;
  #out = 0;
  #lastBatch = 0;

  /**
   * @param {{ isEager?: boolean }} [how] Whether a call that is alone begins at once; those of a file wait for all that
   *   one turn of the event loop writes, as a commit is much dearer than what is in it.
   */
  constructor({ isEager = false } = {}) {
    this.#isEager = isEager;
  }

  /**
   * The addon calls it for each batch: tickets and numbers by turns, of which there are so many, what was refused, and
   * what was found: the number of a call that found nothing is -1, and the others' say where among `texts` it is.
   */
  settle = (done, length, failures, texts) => {
    if (length === 0 && failures.length === 0) return;
    this.#lastBatch = failures.length + length / 2;
    // All at once, as the tickets may be given to others from now on.
    for (const { ticket, code, message } of failures) {
      this.#ended.push(this.#take(ticket).refuse(makeError(code, message)));
    }
    for (let at = 0; at < length; at += 2) {
      const number = done[at + 1];
      this.#ended.push(this.#take(done[at]).fill(number >= 0 ? number : (texts[-2 - number] ?? null)));
    }
    if (!this.#isResting) this.#endSome();
  };

  /** The store is opened with `settle`, so that it comes later. */
  serve(store) {
    this.#store = store;
    return store;
  }

  /**
   * Resolves to what `read` makes of the end of a call and of what is given: the number of a write, and of a `get` the
   * reply or `null`.
   */
  end(ticket, read, given) {
    if (this.#isEager && this.#out === 0 && this.#lastBatch <= 1) {
      native.kick(this.#store);
    } else if (!this.#isKicking) {
      this.#isKicking = true;
      // Whatever else is called in this turn of the event loop goes with it.
      setImmediate(this.#kick);
    }
    this.#out++;
    return new Promise((resolve, reject) => {
      this.#waiting[ticket] = new Call(resolve, reject, read, given);
    });
  }

  #kick = () => {
    this.#isKicking = false;
    try {
      native.kick(this.#store);
    } catch {
      // It was closed meanwhile, which has begun them.
    }
  };

  #endSome = () => {
    this.#isResting = false;
    const ended = this.#ended;
    const some = ended.length <= AT_ONCE ? ended : ended.splice(0, AT_ONCE);
    if (some === ended) this.#ended = [];
    for (const call of some) call.end();
    if (some.length < AT_ONCE) return;
    this.#isResting = true;
    setImmediate(this.#endSome);
  };

  #take(ticket) {
    this.#out--;
    const waiting = this.#waiting[ticket];
    this.#waiting[ticket] = undefined;
    return waiting;
  }
}

module.exports = { Writes };
