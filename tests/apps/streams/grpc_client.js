'use strict';

// node grpc_client.js <address> <access token>

const grpc = require('@grpc/grpc-js');
const { users } = require('./service');

const [address, token] = process.argv.slice(2);
const Client = grpc.makeGenericClientConstructor(users, 'Users');
const client = new Client(address, grpc.credentials.createInsecure());
const metadata = new grpc.Metadata();
if (token) metadata.set('authorization', `Bearer ${token}`);
metadata.set('x-wx-openid', 'somebody');

const told = {};
const who = (asked) => new Promise((done) => {
  const call = client.who(asked, metadata, (error, answer) => done({ code: error?.code ?? 0, details: error?.details, answer }));
  call.on('status', ({ metadata }) => { told.servedBy = metadata.get('x-served-by')[0] ?? told.servedBy; });
});
const count = (to) => new Promise((done, fail) => {
  const all = [];
  const call = client.count(String(to), metadata);
  call.on('data', (message) => all.push(message));
  call.on('error', fail);
  call.on('end', () => done(all));
});

(async () => {
  told.unary = await who('alice');
  if (token) {
    told.unknown = await who('nobody');
    told.stream = (await count(1000)).length;
    told.many = (await Promise.all(Array.from({ length: 50 }, () => who('alice')))).filter(({ code }) => code === 0).length;
  }
  console.log(JSON.stringify(told));
  client.close();
})();
