// An app that gets pushes, in Express: it knows WeChat's messages and the `x-wx-*` headers of CloudRun, and nothing of
// wx-sidecar. What it answers with 200 is in its ledger and on the disk. `../push-flask/app.py` does the same.
'use strict';

const { open } = require('node:fs/promises');
const express = require('express');

const app = express();

// The body as text: a MsgId is larger than what a number of JavaScript holds.
app.post('/wx/push', express.text({ type: 'application/json', limit: '1mb' }), async (req, res) => {
  const message = JSON.parse(req.body);
  if (message.MsgType === 'text' && !message.Content) {
    return res.status(400).json({ error: 'a text without a text' });
  }
  await enter({ id: req.get('x-wx-msg-id'), openid: req.get('x-wx-openid'), body: req.body });
  res.json({ taken: true });
});

// Fails, and so the request does, while there is no place for the ledger.
async function enter(entry) {
  const ledger = await open(process.env.LEDGER, 'a');
  try {
    await ledger.write(`${JSON.stringify(entry)}\n`);
    await ledger.datasync();
  } finally {
    await ledger.close();
  }
}

const server = app.listen(Number(process.env.PORT ?? 80), '127.0.0.1', (error) => {
  if (error) throw error;
  console.log(`listening on ${server.address().port}`);
});
