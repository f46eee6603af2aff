// A Mini Program's backend behind wx-sidecar, in Node 18 or later, with nothing to install. Run it:
//
//   node examples/backends/node/app.js
//
// PORT is where it listens (3000), WECHAT the sidecar's outbound side, TEMPLATE the id of a subscription template.
'use strict';

const http = require('node:http');

const WECHAT = process.env.WECHAT || 'http://127.0.0.1:8081';
const TEMPLATE = process.env.TEMPLATE || 'your-template-id';

const routes = {
  // Who is calling: the sidecar has checked it, and no client can send these headers.
  'GET /me': (req) => {
    const said = (name) => req.headers[`x-wx-${name}`] ?? null;
    return json(200, { openid: said('openid'), unionid: said('unionid'), appid: said('appid'), source: said('source'), env: said('env') });
  },

  // The phone sent ciphertext, and the sidecar decrypted it on the way (a route with open_data = true). Without the
  // header nobody looked into the body, and what it says is the client's own claim.
  'POST /phone': (req, body) => {
    if (!Number(req.headers['x-wx-open-data'])) return json(400, { error: 'no open data' });
    return json(200, { phoneNumber: JSON.parse(body).openData?.phoneNumber ?? null });
  },

  // A subscription message to whoever asks. The answer is WeChat's, or what is wrong with it as problem+json.
  'POST /notify': (req) => {
    const data = { thing1: { value: 'Your order is ready' } };
    return wechat('/cgi-bin/message/subscribe/send', { touser: req.headers['x-wx-openid'], template_id: TEMPLATE, data });
  },

  // What WeChat pushes. A user's text is answered by customer service; 503 has the message delivered again.
  'POST /wx/push': async (req, body) => {
    if (req.headers['x-wx-source'] !== 'wx_push') return json(403, { error: 'not from WeChat' });
    if (req.headers['x-wx-msg-type'] !== 'text') return json(200, {});
    const text = { content: `You wrote: ${JSON.parse(body).Content}` };
    const answer = await wechat('/cgi-bin/message/custom/send', { touser: req.headers['x-wx-openid'], msgtype: 'text', text });
    return json(answer.status < 500 ? 200 : 503, {});
  },
};

async function wechat(path, message) {
  const headers = { 'Content-Type': 'application/json', Accept: 'application/problem+json' };
  const answer = await fetch(WECHAT + path, { method: 'POST', headers, body: JSON.stringify(message) });
  return { status: answer.status, type: answer.headers.get('content-type'), body: await answer.text() };
}

function json(status, value) {
  return { status, type: 'application/json', body: JSON.stringify(value) };
}

http.createServer(async (req, res) => {
  try {
    const pieces = [];
    for await (const piece of req) pieces.push(piece);
    const route = routes[`${req.method} ${req.url.split('?')[0]}`];
    const answer = route ? await route(req, Buffer.concat(pieces).toString()) : json(404, { error: 'not found' });
    res.writeHead(answer.status, { 'Content-Type': answer.type }).end(answer.body);
  } catch (error) {
    console.error(error);
    res.writeHead(500).end();
  }
}).listen(process.env.PORT ?? 3000, '127.0.0.1', function () {
  console.log(`listening on http://127.0.0.1:${this.address().port}`);
});
