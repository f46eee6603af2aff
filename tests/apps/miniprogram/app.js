// The app behind the sidecar, on a Unix socket: its address is known before it runs. It keeps what it saw.
'use strict';

const crypto = require('node:crypto');
const http = require('node:http');
const { WebSocketServer } = require('ws');

const seen = [];

/** Starts it; `seen` is what came, in order. */
module.exports = (place) => new Promise((resolve) => {
  const sockets = new WebSocketServer({ noServer: true });
  const server = http.createServer(async (req, res) => {
    const pieces = [];
    for await (const piece of req) pieces.push(piece);
    const body = Buffer.concat(pieces);
    const openid = req.headers['x-wx-openid'] || null;
    const path = req.url.split('?')[0];
    seen.push({ method: req.method, path, url: req.url, openid, headers: req.headers, body: body.toString() });
    const say = (status, value) => res.writeHead(status, { 'Content-Type': 'application/json' }).end(JSON.stringify(value));
    switch (path) {
      case '/me': return say(200, { openid });
      case '/no': return say(401, { error: 'the app says no' });
      case '/problem': return say(418, { type: 'urn:app:teapot', title: 'Teapot', detail: '我是茶壶', status: 418 });
      case '/broken': return say(500, { error: 'broken' });
      case '/gone': return req.socket.destroy();
      case '/slow': return setTimeout(() => say(200, { openid }), 200);
      case '/file': return res.writeHead(200, { 'Content-Type': 'image/png' }).end(Buffer.from([0x89, 0x50, 0, 0xff]));
      case '/cookie': return res.writeHead(200, { 'Set-Cookie': 'a=b' }).end('text');
      case '/sum': return say(200, { openid, sha256: crypto.createHash('sha256').update(body).digest('hex') });
      default: return say(200, { openid, url: req.url, headers: req.headers, body: body.toString() });
    }
  });
  server.on('upgrade', (req, socket, head) => {
    const openid = req.headers['x-wx-openid'];
    seen.push({ method: 'SOCKET', path: req.url, openid, headers: req.headers });
    sockets.handleUpgrade(req, socket, head, (open) => {
      open.send(`hello ${openid}`);
      open.on('message', (data) => open.send(`${openid} says ${data}`));
    });
  });
  server.listen(place, () => resolve({ seen, close: () => { server.close(); server.closeAllConnections(); } }));
});
