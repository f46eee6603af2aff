// An app that wants proof: verifies a JWT with the keys at a URL and prints its claims, or why not.
//
//   node verify.js JWKS_URL AUDIENCE JWT [CURRENT_DATE]
'use strict';

const { createRemoteJWKSet, jwtVerify } = require('jose');

const [url, audience, token, now] = process.argv.slice(2);
const options = {
  audience,
  issuer: 'wx-sidecar',
  algorithms: ['EdDSA'],
  currentDate: now ? new Date(Number(now)) : undefined,
};
jwtVerify(token, createRemoteJWKSet(new URL(url)), options).then(
  ({ payload, protectedHeader }) => console.log(JSON.stringify({ payload, protectedHeader })),
  (error) => console.log(JSON.stringify({ error: error.code })),
);
