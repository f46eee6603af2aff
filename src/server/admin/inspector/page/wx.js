// A phone as far as a Mini Program sees one: `wx`, with a user, storage and files, over the relay of the admin listener.
// The real helper, wx-sidecar.js, runs on it unchanged, in a realm of its own: it keeps its state in globals, and several
// users hold their phones at the same time.

import { language } from './words.js';

export class Device {
  storage = new Map();
  files = new Map();
  #kept = 0;
  openid = null;
  #frame = null;
  #sockets = new Set();

  /** `where` is `state.phone`: the addresses of the sidecar and the simulator. */
  constructor(user, where) {
    this.user = user;
    this.where = where;
  }

  /** The helper of the Mini Program as it runs now. */
  sidecar() {
    return (this.started ??= this.#start());
  }

  /** What the helper has stored, or null: whether somebody is logged in. */
  get tokens() {
    return this.storage.get('wx-sidecar') ?? null;
  }

  /** Ends the Mini Program. The next use starts it, with what is in storage. */
  restart() {
    for (const socket of this.#sockets) socket.close();
    this.#frame?.remove();
    this.#frame = null;
    this.started = null;
  }

  #start() {
    return new Promise((resolve, reject) => {
      const frame = document.createElement('iframe');
      frame.hidden = true;
      frame.title = this.user;
      // Some browsers put another empty document in the place of the first one, and then it has loaded.
      frame.addEventListener('load', () => {
        const realm = frame.contentWindow;
        realm.wx = this.#wx();
        realm.module = { exports: {} };
        const script = realm.document.createElement('script');
        script.src = new URL('wx-sidecar.js', location.href).href;
        script.onload = () => resolve(realm.module.exports.init({ baseUrl: this.where.sidecar, prefix: this.where.prefix }));
        script.onerror = () => {
          this.restart();
          reject(new Error('wx-sidecar.js'));
        };
        realm.document.head.append(script);
      }, { once: true });
      this.#frame = frame;
      document.body.append(frame);
    });
  }

  /** A code as wx.login gives it. */
  async code(kind = 'login') {
    const told = await control('code', { user: this.user, kind });
    this.openid = told.openid;
    return told.code;
  }

  /** A file of the phone's, as wx.chooseMedia gives it. */
  keep(blob, name) {
    this.#kept += 1;
    const path = `wxfile://tmp_${this.#kept}_${name}`;
    this.files.set(path, { blob, name });
    // A phone throws the oldest away too.
    if (this.files.size > 20) this.files.delete(this.files.keys().next().value);
    return path;
  }

  #wx() {
    const { storage } = this;
    return {
      login: ({ success, fail }) => {
        this.code().then((code) => success({ code, errMsg: 'login:ok' }), (why) => fail({ errMsg: `login:fail ${why.message}` }));
      },
      request: (options) => this.#send('request', options, () => {
        const header = { 'content-type': 'application/json', ...lower(options.header) };
        const method = (options.method ?? 'GET').toUpperCase();
        const bare = method === 'GET' || method === 'HEAD';
        const body = bare || options.data === undefined ? undefined : typeof options.data === 'string' ? options.data : JSON.stringify(options.data);
        const query = bare && options.data ? `?${new URLSearchParams(options.data)}` : '';
        if (body === undefined) delete header['content-type'];
        return { path: relayed(this.where, options.url) + query, method, header, body };
      }, async (answer) => json(await answer.text())),
      uploadFile: (options) => this.#send('uploadFile', options, () => {
        const file = this.files.get(options.filePath);
        if (!file) throw new Error('file not found');
        const form = new FormData();
        for (const [name, value] of Object.entries(options.formData ?? {})) form.append(name, value);
        form.append(options.name, file.blob, file.name);
        const header = lower(options.header);
        // The browser knows the boundary.
        delete header['content-type'];
        return { path: relayed(this.where, options.url), method: 'POST', header, body: form };
      }, (answer) => answer.text()),
      downloadFile: (options) => this.#send('downloadFile', options, () => (
        { path: relayed(this.where, options.url), method: 'GET', header: lower(options.header) }
      ), async (answer, told) => {
        told.tempFilePath = this.keep(await answer.blob(), 'download');
      }),
      connectSocket: (options) => this.#connect(options),
      getStorageSync: (key) => structuredClone(storage.get(key) ?? ''),
      setStorageSync: (key, value) => { storage.set(key, JSON.parse(JSON.stringify(value))); },
      removeStorageSync: (key) => { storage.delete(key); },
    };
  }

  #send(name, options, prepare, read) {
    const giveUp = new AbortController();
    const timer = setTimeout(() => giveUp.abort(), options.timeout ?? 60_000);
    const work = async () => {
      const { path, method, header, body } = prepare();
      const headers = { 'accept-language': language() === 'zh' ? 'zh-CN' : 'en', ...header };
      const answer = await fetch(path, { method, headers, body, signal: giveUp.signal, cache: 'no-store' });
      const told = { statusCode: answer.status, header: Object.fromEntries(answer.headers), errMsg: `${name}:ok` };
      const data = await read(answer, told);
      if (data !== undefined) told.data = data;
      return told;
    };
    work().then(options.success, (why) => options.fail({ errMsg: `${name}:fail ${giveUp.signal.aborted ? 'timeout' : why.message}` }))
      .finally(() => clearTimeout(timer));
    return { abort: () => giveUp.abort(), onHeadersReceived() {}, onProgressUpdate() {} };
  }

  #connect(options) {
    const path = relayed(this.where, options.url.replace(/^ws/, 'http'));
    const address = new URL(path, location.href);
    address.protocol = address.protocol.replace('http', 'ws');
    // A browser's WebSocket has no headers: the relay makes Authorization of this.
    const bearer = /^Bearer (.+)$/.exec(lower(options.header).authorization ?? '')?.[1];
    const socket = new WebSocket(address, [...(options.protocols ?? []), ...(bearer ? [`bearer.${bearer}`] : [])]);
    this.#sockets.add(socket);
    const on = (event, tell) => (listener) => socket.addEventListener(event, (it) => listener(tell(it)));
    on('close', () => this.#sockets.delete(socket))(() => {});
    return {
      onOpen: on('open', () => ({})),
      onMessage: on('message', (it) => ({ data: it.data })),
      onClose: on('close', (it) => ({ code: it.code, reason: it.reason })),
      onError: on('error', () => ({ errMsg: 'connectSocket:fail' })),
      send: ({ data, success, fail }) => {
        try { socket.send(data); success?.({ errMsg: 'sendSocketMessage:ok' }); } catch (why) { fail?.({ errMsg: why.message }); }
      },
      close: ({ code, reason } = {}) => socket.close(code ?? 1000, reason),
    };
  }
}

/** The simulator's control side. With a body it is a POST. */
export async function control(path, body, method = body ? 'POST' : 'GET') {
  const answer = await fetch(`phone/sim/_sim/${path}`, body ? { method, body: JSON.stringify(body), headers: { 'content-type': 'application/json' } } : { method });
  const text = await answer.text();
  const told = json(text);
  if (!answer.ok) throw new Error(told?.error ?? told?.detail ?? text.slice(0, 300) ?? `HTTP ${answer.status}`);
  return told;
}

/** A URL of the sidecar's, as the browser can reach it: the sidecar is of another origin. */
export function relayed(where, url) {
  if (!url.startsWith(where.sidecar)) throw new Error(`not of the sidecar: ${url}`);
  return `phone/sidecar${url.slice(where.sidecar.length)}`;
}

function json(text) {
  try { return JSON.parse(text); } catch { return text; }
}

function lower(header) {
  return Object.fromEntries(Object.entries(header ?? {}).map(([name, value]) => [name.toLowerCase(), value]));
}
