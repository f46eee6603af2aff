// WeChat's servers as the package of WeChat's makers for Node would be them: encrypts the messages of the file named in its
// argument, posts each as WeChat does, decrypts what is answered, and prints a line for each. `tests/push_apps.rs` has
// written the file. The package is WeCom's, whose cipher and signature are the same.
'use strict';

const assert = require('node:assert');
const { randomBytes } = require('node:crypto');
const { readFileSync } = require('node:fs');

const { decrypt, encrypt, getSignature } = require('@wecom/crypto');

const given = JSON.parse(readFileSync(process.argv[2], 'utf8'));

async function main() {
  for (const message of given.messages) {
    console.log(JSON.stringify(await push(given.keys[message.key], message)));
  }
}

async function push(key, { text, openid }) {
  const nonce = randomBytes(8).toString('hex');
  const timestamp = Math.floor(Date.now() / 1000);
  const encrypted = encrypt(key.aes_key, text, given.appid);
  const query = new URLSearchParams({
    signature: getSignature(key.token, timestamp, nonce, ''),
    timestamp,
    nonce,
    openid,
    encrypt_type: 'aes',
    msg_signature: getSignature(key.token, timestamp, nonce, encrypted),
  });
  const answer = await fetch(`${given.url}?${query}`, {
    method: 'POST',
    // WeChat's Content-Type says nothing of the format.
    headers: { 'Content-Type': 'text/xml' },
    body: envelope(text, encrypted),
  });
  const around = 20 + Buffer.byteLength(text) + given.appid.length;
  return {
    status: answer.status,
    padding: Buffer.from(encrypted, 'base64').length - around,
    ...whatWasAnswered(await answer.text(), key, nonce),
  };
}

function envelope(text, encrypted) {
  if (text.startsWith('{')) {
    return JSON.stringify({ ToUserName: given.to, Encrypt: encrypted });
  }
  return `<xml><ToUserName><![CDATA[${given.to}]]></ToUserName><Encrypt><![CDATA[${encrypted}]]></Encrypt></xml>`;
}

function whatWasAnswered(body, key, nonce) {
  let reply;
  if (body.startsWith('{') && body.includes('Encrypt')) {
    reply = JSON.parse(body);
    assert.strictEqual(typeof reply.TimeStamp, 'number');
  } else if (body.startsWith('<')) {
    reply = Object.fromEntries(['Encrypt', 'MsgSignature', 'TimeStamp', 'Nonce'].map((name) => [name, element(body, name)]));
  } else {
    return { answer: body };
  }
  assert.strictEqual(reply.Nonce, nonce);
  assert.strictEqual(reply.MsgSignature, getSignature(key.token, reply.TimeStamp, reply.Nonce, reply.Encrypt));
  const { message, id } = decrypt(key.aes_key, reply.Encrypt);
  assert.strictEqual(id, given.appid);
  return { reply: message };
}

// Node has no XML parser.
function element(xml, name) {
  const [, inside] = xml.match(new RegExp(`<${name}>(.*?)</${name}>`, 's'));
  return inside.replace(/^<!\[CDATA\[(.*)\]\]>$/s, '$1');
}

main().catch((error) => {
  console.error(error);
  process.exitCode = 1;
});
