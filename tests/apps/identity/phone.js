// What WeChat gives a phone: for each session_key and JSON text a line with `encryptedData`, `iv` and the signature of the
// text as `rawData`.
//
//   node phone.js SESSION_KEY JSON [SESSION_KEY JSON ...]
'use strict';

const CryptoJS = require('crypto-js');

const { Base64, Hex, Utf8 } = CryptoJS.enc;
const words = process.argv.slice(2);
for (let i = 0; i < words.length; i += 2) {
  const [key, json] = [words[i], words[i + 1]];
  const iv = CryptoJS.lib.WordArray.random(16);
  const encrypted = CryptoJS.AES.encrypt(Utf8.parse(json), Base64.parse(key), {
    iv,
    mode: CryptoJS.mode.CBC,
    padding: CryptoJS.pad.Pkcs7,
  });
  const signature = CryptoJS.SHA1(json + key).toString(Hex);
  console.log(`${encrypted.ciphertext.toString(Base64)} ${Base64.stringify(iv)} ${signature}`);
}
