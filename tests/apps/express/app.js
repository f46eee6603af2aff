// A CloudRun (微信云托管) backend in Express, as people write them: it reads the `x-wx-*` headers that the platform
// injects and knows nothing of wx-sidecar. `../flask/app.py` answers the same.
'use strict';

const { createHash } = require('node:crypto');
const { Readable, pipeline } = require('node:stream');
const express = require('express');
const multer = require('multer');

const app = express();
const json = express.json({ limit: '10mb', strict: false });
const form = multer({ storage: multer.memoryStorage(), defParamCharset: 'utf8' });

// Who calls: CloudRun sets `x-wx-source` on what comes from WeChat, so an absent one means somebody else.
function caller(req, res, next) {
  if (!req.get('x-wx-source')) {
    return res.status(401).json({ error: 'not from WeChat' });
  }
  req.openid = req.get('x-wx-openid');
  next();
}

app.get('/api/whoami', caller, (req, res) => {
  res.json({
    openid: req.openid ?? null,
    unionid: req.get('x-wx-unionid'), // JSON leaves out what is undefined
    appid: req.get('x-wx-appid') ?? null,
    source: req.get('x-wx-source'),
    env: req.get('x-wx-env') ?? null,
  });
});

const counts = new Map();

app.get('/api/count', caller, (req, res) => {
  res.json({ code: 0, data: counts.get(req.openid) ?? 0 });
});

app.post('/api/count', caller, json, (req, res) => {
  const action = req.body?.action;
  if (action === 'inc') {
    counts.set(req.openid, (counts.get(req.openid) ?? 0) + 1);
  } else if (action === 'clear') {
    counts.delete(req.openid);
  } else {
    return res.status(400).json({ code: -1, errorMsg: 'action is inc or clear' });
  }
  res.json({ code: 0, data: counts.get(req.openid) ?? 0 });
});

app.post('/api/upload', async (req, res) => {
  const hash = createHash('sha256');
  let bytes = 0;
  for await (const piece of req) {
    bytes += piece.length;
    hash.update(piece);
  }
  res.json({ bytes, sha256: hash.digest('hex'), content_type: req.get('content-type') ?? null });
});

app.post('/api/form', form.single('file'), (req, res) => {
  if (!req.file) {
    return res.status(400).json({ error: 'no file' });
  }
  res.json({
    filename: req.file.originalname,
    bytes: req.file.size,
    sha256: createHash('sha256').update(req.file.buffer).digest('hex'),
    fields: req.body,
  });
});

app.post('/api/json', json, (req, res) => {
  if (req.body === undefined) {
    return res.status(415).json({ error: 'not JSON' });
  }
  res.json(req.body);
});

// Byte `i` of a download is `i % 251`.
const PATTERN = Buffer.from(Array.from({ length: 251 * 256 }, (_, i) => i % 251));

function* download(bytes) {
  for (let left = bytes; left > 0; left -= PATTERN.length) {
    yield PATTERN.subarray(0, Math.min(left, PATTERN.length));
  }
}

app.get('/api/download', (req, res) => {
  const bytes = Number(req.query.bytes ?? 0);
  res.type('application/octet-stream');
  if (req.query.chunked !== '1') {
    res.set('Content-Length', String(bytes));
  }
  res.flushHeaders(); // else Node would know the length of an empty body
  // A phone that hangs up half-way is no error of ours.
  pipeline(Readable.from(download(bytes)), res, () => {});
});

app.get('/api/slow', (req, res) => {
  const ms = Number(req.query.ms ?? 0);
  setTimeout(() => res.json({ slept_ms: ms }), ms);
});

app.get('/api/boom', () => {
  throw new Error('boom');
});

app.get('/public/hello', (req, res) => {
  res.json({ hello: 'world', openid: req.get('x-wx-openid') ?? null });
});

app.post('/auth/login', caller, json, (req, res) => {
  if (req.body?.nickname === 'banned') {
    return res.status(403).json({ error: 'banned' });
  }
  res.json({ welcome: req.openid });
});

// What this app saw, unprocessed. Serves everything under /echo too.
app.use('/echo', (req, res) => {
  const headers = [];
  for (let i = 0; i < req.rawHeaders.length; i += 2) {
    headers.push([req.rawHeaders[i], req.rawHeaders[i + 1]]);
  }
  res.json({ method: req.method, url: req.originalUrl, headers });
});

const server = app.listen(Number(process.env.PORT ?? 80), '127.0.0.1', (error) => {
  if (error) throw error;
  console.log(`listening on ${server.address().port}`);
});

for (const signal of ['SIGTERM', 'SIGINT']) {
  process.once(signal, () => {
    server.close();
    server.closeIdleConnections();
  });
}
