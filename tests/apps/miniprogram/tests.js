// Runs tests with node:test and says at the end, in one line of JSON, how many were begun and how many passed: the
// reporters of Node's versions differ, and so does when they know the exit code.
'use strict';

const { test } = require('node:test');

let begun = 0;
let passed = 0;

process.on('exit', () => console.log(JSON.stringify({ begun, passed })));

module.exports = (name, body) => {
  begun += 1;
  test(name, async () => {
    await body();
    passed += 1;
  });
};
