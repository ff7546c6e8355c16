/** Whether a value is an array of the realm that the tests run in. */
const isOwnArray = (value) => Object.getPrototypeOf(value) === Array.prototype;

module.exports = { isOwnArray };
