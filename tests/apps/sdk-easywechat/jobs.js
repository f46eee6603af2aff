// An app that uses EasyWeChat as its documentation tells: does the jobs of `tests/sdks.rs` for the input in its argument,
// and prints what came of them. Secret values are printed as their SHA-256, because what it prints is an output.
'use strict';

const { createHash } = require('node:crypto');

const { FormData, MiniApp } = require('node-easywechat');

const given = JSON.parse(process.argv[2]);
const app = new MiniApp({
  app_id: given.appid,
  secret: given.secret,
  use_stable_access_token: true,
  http: { baseURL: given.base },
});
// Its own cache is a file in the current folder.
const cache = new Map();
app.setCache({ get: async (key) => cache.get(key), set: async (key, value) => cache.set(key, value) });
// Beyond the login it has no functions for single endpoints, but a client that adds the token.
const client = app.getClient();

async function jobs() {
  const session = await app.getUtils().codeToSession(given.login_code);
  const phone = await post('/wxa/business/getuserphonenumber', { code: given.phone_code });
  const message = await post('/cgi-bin/message/subscribe/send', {
    touser: session.openid,
    template_id: given.template,
    data: Object.fromEntries(Object.entries(given.message).map(([name, value]) => [name, { value }])),
  });
  const code = await draw(given.scene);
  const refused = JSON.parse(await draw(given.long_scene));
  const media = await upload(code);
  const download = await client.get('/cgi-bin/media/get', {
    params: { media_id: media.media_id },
    responseType: 'arraybuffer',
  });
  return {
    openid: session.openid,
    session_key: digest(session.session_key),
    phone: digest(phone.phone_info.purePhoneNumber),
    message_sent: message.msgid > 0,
    code: digest(code),
    refused: refused.errcode,
    download: digest(download.getContent()),
    harmless: await check(given.harmless, session.openid),
    risky: await check(given.risky, session.openid),
  };
}

async function post(path, json) {
  return granted(await client.postJson(path, json));
}

// The client hands on an errcode as any other answer.
function granted(answer) {
  const body = answer.toObject();
  if (body.errcode) throw new Error(`WeChat says ${body.errcode} ${body.errmsg}`);
  return body;
}

// The bytes of a picture, or of the JSON of a refusal.
async function draw(scene) {
  const answer = await client.postJson('/wxa/getwxacodeunlimit', { scene }, { responseType: 'arraybuffer' });
  return answer.getContent();
}

async function upload(image) {
  const data = new FormData();
  data.append('media', image, { filename: 'code.jpg', contentType: 'image/jpeg' });
  return granted(await client.post('/cgi-bin/media/upload', { params: { type: 'image' }, data }));
}

async function check(content, openid) {
  const checked = await post('/wxa/msg_sec_check', { version: 2, scene: 2, openid, content });
  return checked.result.suggest;
}

function digest(of) {
  return createHash('sha256').update(of).digest('hex');
}

jobs().then(
  (results) => console.log(JSON.stringify(results)),
  (error) => {
    console.error(error);
    process.exitCode = 1;
  },
);
