'use strict';

// A gRPC service without a compiler for protobuf: its messages are text.

const text = {
  requestSerialize: (message) => Buffer.from(message),
  requestDeserialize: (bytes) => bytes.toString(),
  responseSerialize: (message) => Buffer.from(message),
  responseDeserialize: (bytes) => bytes.toString(),
};

exports.users = {
  who: { path: '/test.Users/Who', requestStream: false, responseStream: false, ...text },
  count: { path: '/test.Users/Count', requestStream: false, responseStream: true, ...text },
};
