// A phone: what `wx` is in a Mini Program, as far as wx-sidecar.js and the sample use it, over real HTTP and WebSocket.
//
// It does as the real one does where that matters: any status is a success; headers come in whatever case; what is
// uploaded is answered by text without headers; storage belongs to the user and holds copies. Codes and open data come
// from the simulator. `offline`, `brokenStorage`, `loginFails` and `lose` are what can go wrong with a phone.
'use strict';

const fs = require('node:fs');
const http = require('node:http');
const os = require('node:os');
const path = require('node:path');
const WebSocket = require('ws');

const HELPER = path.join(__dirname, '../../../examples/miniprogram/wx-sidecar.js');

class Phone {
  constructor(simulator, user) {
    this.simulator = simulator;
    this.user = user;
    this.stores = new Map();
    this.offline = false;
    this.brokenStorage = false;
    this.loginFails = false;
    // A path whose answers get lost on their way.
    this.lose = null;
    // How many answers have not come yet.
    this.underWay = 0;
    // What the clock is ahead of the world's, in milliseconds.
    this.ahead = 0;
    this.logins = 0;
    // The paths that were called, in order, with methods.
    this.calls = [];
    this.wx = this.functions();
  }

  /** How often that was called, such as `POST /wx/login`. */
  count(call) {
    return this.calls.filter((it) => it === call).length;
  }

  /** A module of the Mini Program, loaded as at its start: with this phone's `wx`, and nothing of an earlier run. */
  load(file = HELPER, more = {}) {
    const module = { exports: {} };
    const inside = (relative) => this.load(path.resolve(path.dirname(file), relative), more);
    const clock = { now: () => Date.now() + this.ahead };
    // No globals of Node's: a Mini Program has none.
    const hidden = ['process', 'global', 'Buffer', 'fetch', 'URL', 'TextDecoder', 'URLSearchParams'];
    const globals = { module, exports: module.exports, require: inside, wx: this.wx, Date: clock, ...more };
    const run = new Function(...Object.keys(globals), ...hidden, fs.readFileSync(file, 'utf8'));
    run(...Object.values(globals));
    return module.exports;
  }

  store() {
    if (this.brokenStorage) throw new Error('storage:fail');
    if (!this.stores.has(this.user)) this.stores.set(this.user, new Map());
    return this.stores.get(this.user);
  }

  functions() {
    const phone = this;
    return {
      login(options) {
        phone.logins += 1;
        if (phone.loginFails) return void setImmediate(() => finish(options, 'fail', { errMsg: 'login:fail system error', errno: 600001 }));
        ask(`${phone.simulator}/_sim/code?user=${phone.user}`).then((answer) => {
          finish(options, 'success', { code: JSON.parse(answer.body).code, errMsg: 'login:ok' });
        });
      },

      request(options) {
        const header = { 'content-type': 'application/json', ...lowered(options.header) };
        const method = options.method || 'GET';
        let url = options.url;
        let body = options.data;
        if (body && typeof body === 'object' && !(body instanceof ArrayBuffer)) {
          if (method === 'GET') {
            url += (url.includes('?') ? '&' : '?') + new URLSearchParams(body);
            body = undefined;
          } else if (/json/.test(header['content-type'])) {
            body = JSON.stringify(body);
          } else {
            body = String(new URLSearchParams(body));
          }
        }
        if (body instanceof ArrayBuffer) body = Buffer.from(body);
        return phone.call('request', options, { url, method, header, body }, (answer) => {
          let data = answer.body.toString();
          if (options.responseType === 'arraybuffer') {
            data = new Uint8Array(answer.body).buffer;
          } else if ((options.dataType || 'json') === 'json') {
            try { data = JSON.parse(data); } catch (text) { /* It stays text. */ }
          }
          const cookies = [].concat(answer.header['set-cookie'] || []);
          return { data, statusCode: answer.status, header: titled(answer.header), cookies };
        });
      },

      uploadFile(options) {
        const mark = 'a-mark-of-the-phone';
        const part = (disposition, content) => [`--${mark}\r\nContent-Disposition: form-data; ${disposition}\r\n\r\n`, content, '\r\n'];
        const pieces = Object.entries(options.formData || {}).flatMap(([name, value]) => part(`name="${name}"`, value));
        pieces.push(...part(`name="${options.name}"; filename="${path.basename(options.filePath)}"`, fs.readFileSync(options.filePath)));
        const body = Buffer.concat([...pieces, `--${mark}--\r\n`].map((piece) => Buffer.from(piece)));
        const header = { ...lowered(options.header), 'content-type': `multipart/form-data; boundary=${mark}` };
        return phone.call('uploadFile', options, { url: options.url, method: 'POST', header, body }, (answer) => (
          { data: answer.body.toString(), statusCode: answer.status }
        ));
      },

      downloadFile(options) {
        return phone.call('downloadFile', options, { url: options.url, method: 'GET', header: lowered(options.header) }, (answer) => {
          const folder = fs.mkdtempSync(path.join(os.tmpdir(), 'phone-'));
          process.on('exit', () => fs.rmSync(folder, { recursive: true }));
          const tempFilePath = path.join(folder, 'file');
          fs.writeFileSync(tempFilePath, answer.body);
          return { tempFilePath, statusCode: answer.status };
        });
      },

      connectSocket(options) {
        phone.calls.push(`SOCKET ${new URL(options.url).pathname}`);
        const socket = new WebSocket(options.url, options.protocols || [], { headers: options.header });
        const on = (event) => (told) => socket.on(event, told);
        return {
          onOpen: on('open'),
          onError: (told) => socket.on('error', (why) => told({ errMsg: why.message })),
          onClose: on('close'),
          onMessage: (told) => socket.on('message', (data) => told({ data: data.toString() })),
          send: ({ data }) => socket.send(data),
          close: () => socket.close(),
        };
      },

      setStorageSync(key, value) { phone.store().set(key, JSON.stringify(value)); },
      getStorageSync(key) {
        const found = phone.store().get(key);
        return found === undefined ? '' : JSON.parse(found);
      },
      removeStorageSync(key) { phone.store().delete(key); },
    };
  }

  call(name, options, request, read) {
    const called = `${request.method} ${new URL(request.url).pathname}`;
    this.calls.push(called);
    const fails = (why) => finish(options, 'fail', { errMsg: `${name}:fail ${why}`, errno: 5 });
    if (this.offline) {
      setImmediate(() => fails('the phone is offline'));
      return { abort() {} };
    }
    const asked = ask(request.url, request);
    this.underWay += 1;
    // After all other answers, so that whoever will wait for this one does already.
    const lost = () => {
      if (this.underWay > 0) return setImmediate(lost);
      return fails('socket hang up');
    };
    asked.then((answer) => {
      this.underWay -= 1;
      if (this.lose && called.endsWith(this.lose)) return lost();
      return finish(options, 'success', { ...read(answer), errMsg: `${name}:ok` });
    }, (why) => {
      this.underWay -= 1;
      fails(why.message);
    });
    return { abort: () => asked.request.destroy(new Error('abort')), onProgressUpdate() {} };
  }
}

function finish(options, which, result) {
  if (options[which]) options[which](result);
  if (options.complete) options.complete(result);
}

function ask(url, { method = 'GET', header = {}, body } = {}) {
  let request;
  const asked = new Promise((resolve, reject) => {
    const length = body === undefined ? {} : { 'content-length': Buffer.byteLength(body) };
    request = http.request(url, { method, headers: { ...header, ...length }, agent: false }, (response) => {
      const pieces = [];
      response.on('data', (piece) => pieces.push(piece));
      response.on('error', reject);
      response.on('end', () => resolve({ status: response.statusCode, header: response.headers, body: Buffer.concat(pieces) }));
    });
    request.on('error', reject);
    request.end(body);
  });
  asked.request = request;
  return asked;
}

function lowered(header = {}) {
  return Object.fromEntries(Object.entries(header).map(([name, value]) => [name.toLowerCase(), value]));
}

/** Some devices give headers so. */
function titled(header) {
  return Object.fromEntries(Object.entries(header).map(([name, value]) => [name.replace(/\b[a-z]/g, (c) => c.toUpperCase()), String(value)]));
}

module.exports = { Phone, ask, HELPER };
