"use strict";

const NEWLINE = 0x0a;

/**
 * Iterates over the lines of a byte stream, without their ends, as bytes. `readline` does not work here: it treats
 * U+2028, which JSON may contain, as the end of a line.
 */
async function* linesOf(stream) {
  let parts = [];
  for await (const chunk of stream) {
    let start = 0;
    for (let end = chunk.indexOf(NEWLINE); end !== -1; end = chunk.indexOf(NEWLINE, start)) {
      parts.push(chunk.subarray(start, end));
      yield parts.length === 1 ? parts[0] : Buffer.concat(parts);
      parts = [];
      start = end + 1;
    }
    if (start < chunk.length) parts.push(chunk.subarray(start));
  }
  if (parts.length > 0) yield Buffer.concat(parts);
}

module.exports = { linesOf };
