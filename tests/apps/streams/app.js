'use strict';

// WebSocket on the port, gRPC on another one that `GET /` tells.

const http = require('node:http');
const grpc = require('@grpc/grpc-js');
const { WebSocketServer } = require('ws');
const { users } = require('./service');

const calls = new grpc.Server();
calls.addService(users, {
  who(call, done) {
    if (call.request === 'nobody') {
      return done({ code: grpc.status.NOT_FOUND, details: 'no such user' });
    }
    const trailer = new grpc.Metadata();
    trailer.set('x-served-by', 'grpc-js');
    done(null, JSON.stringify({ openid: call.metadata.get('x-wx-openid'), asked: call.request }), trailer);
  },
  count(call) {
    for (let n = 1; n <= Number(call.request); n++) {
      call.write(String(n));
    }
    call.end();
  },
});

let grpcPort;
const server = http.createServer((req, res) => {
  res.setHeader('Content-Type', 'application/json');
  res.end(JSON.stringify({ grpc: grpcPort }));
});

const sockets = new WebSocketServer({ server, path: '/ws' });
sockets.on('connection', (socket, req) => {
  socket.send(JSON.stringify({ openid: req.headers['x-wx-openid'] ?? null }));
  socket.on('message', (data, isBinary) => socket.send(data, { binary: isBinary }));
  socket.on('close', (code) => console.log(`closed ${code}`));
});

calls.bindAsync('127.0.0.1:0', grpc.ServerCredentials.createInsecure(), (error, port) => {
  if (error) throw error;
  grpcPort = port;
  server.listen(Number(process.env.PORT ?? 80), '127.0.0.1', () => {
    console.log(`listening on ${server.address().port}`);
  });
});
