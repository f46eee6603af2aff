'use strict';

// node ws_client.js <url> <access token>: prints what happened, a line each, until the other side closes.

const WebSocket = require('ws');

const [url, token] = process.argv.slice(2);
const headers = token ? { Authorization: `Bearer ${token}`, 'X-WX-OPENID': 'somebody' } : {};
const socket = new WebSocket(url, { headers });
const large = Buffer.alloc(1024 * 1024, (n) => n % 251);
let messages = 0;

socket.on('unexpected-response', (_, res) => { console.log(`refused ${res.statusCode}`); process.exit(); });
socket.on('message', (data, isBinary) => {
  messages += 1;
  if (messages === 1) {
    console.log(data.toString());
    socket.send(large);
  } else if (messages === 2) {
    console.log(`echo ${isBinary && data.equals(large)}`);
    socket.ping();
  }
});
socket.on('pong', () => console.log('pong'));
socket.on('close', (code) => console.log(`closed ${code}`));
