/*!
 * wx-sidecar.js: the phone's side of wx-sidecar, for any Mini Program. Copy this file (and wx-sidecar.d.ts) into it:
 *
 *   const sidecar = require('./wx-sidecar.js').init({ baseUrl: 'https://api.example.com' });
 *   const me = (await sidecar.request({ url: '/me' })).data;
 *
 * Nobody has to log in: the first request does. However many requests wait, there is one login; when their token has
 * expired, one refresh, and each request is sent once more. Tokens are kept in memory and in wx's storage, which
 * belongs to one WeChat user, and go to baseUrl only. Written in ES5 with promises, which all base libraries take
 * without a build step. Apache-2.0.
 */
'use strict';

var STORAGE_KEY = 'wx-sidecar';
/** A token that ends so soon is not used any more: it would end on the way. */
var MARGIN_S = 30;
var PROBLEM = 'urn:wx-sidecar:problem:';

var settings = null;
/** `{access, refresh, until}`, or null. `until` is by the phone's clock, which only has to be steady. */
var tokens = null;
/** The login or refresh under way: what all who need a token wait for, and what it brings if nobody wants it any more. */
var flight = null;
var granted = null;
/** Counts logouts: what began before one neither stores its tokens after it nor goes on as another user. */
var generation = 0;
/** Whether a socket failed before it was open: no status is told then, and the token may be why. */
var doubtful = false;

/**
 * Says where the sidecar is. `prefix` is `[inbound] prefix`; `timeout` is for all calls that name none; `language`
 * ('zh-CN') is that of errors, unless a call has an Accept-Language; `getCode` gives the codes in place of wx.login.
 * Called again without options, as CloudRun's init is, it changes nothing.
 */
function init(options) {
  if (!options && settings) return api;
  if (!options || !/^https?:\/\/[^\/?#]+/.test(options.baseUrl || '')) {
    throw new Error('wx-sidecar: init({ baseUrl: "https://..." }) is missing');
  }
  forget();
  settings = {
    baseUrl: options.baseUrl.replace(/\/+$/, ''),
    prefix: options.prefix === undefined ? '/wx' : options.prefix,
    timeout: options.timeout,
    language: options.language,
    getCode: options.getCode || codeOfWeChat
  };
  tokens = stored();
  return api;
}

/** As wx.request, with a path for `url`. A status from 400 on is a failure: an error, see `problem`. */
function request(options) {
  return settle(options, 'request', send(wx.request, options).then(succeeded));
}

/** As wx.uploadFile. Without a `url` the file goes to WeChat, and `data` has its `media_id` and `url`. */
function upload(options) {
  var filled = merge({ url: settled().prefix + '/media', name: 'media' }, options);
  return settle(options, 'uploadFile', send(wx.uploadFile, filled).then(function (answer) {
    var done = succeeded(merge(answer, { data: parsed(answer.data) }));
    // Without `[media] base_url` it is a path, which no <image> loads.
    var url = done.data && done.data.url;
    if (!options.url && /^\//.test(url || '')) done.data.url = settled().baseUrl + url;
    return done;
  }));
}

/** As wx.downloadFile. */
function download(options) {
  return settle(options, 'downloadFile', send(wx.downloadFile, options).then(succeeded));
}

/** As wx.connectSocket, but the SocketTask comes by promise. Connecting again is up to you: call it again. */
function connectSocket(options) {
  return settle(options, 'connectSocket', Promise.resolve().then(function () {
    address(options.url);
    return doubtful ? session() : undefined;
  }).then(function () {
    doubtful = false;
    return options.anonymous ? null : token();
  }).then(function (access) {
    var opened = false;
    var task = wx.connectSocket(merge(without(options), {
      url: address(options.url).replace(/^http/, 'ws'),
      header: headers(options.header, access),
      fail: function () { doubtful = true; }
    }));
    task.onOpen(function () { opened = true; });
    task.onClose(function () { doubtful = doubtful || !opened; });
    task.onError(function () { doubtful = doubtful || !opened; });
    return task;
  }));
}

/** As wx.cloud.callContainer: any answer is a success, whatever its status. `config` and `X-WX-SERVICE` mean nothing here. */
function callContainer(options) {
  var header = {};
  Object.keys(options.header || {}).forEach(function (name) {
    if (!/^x-wx-service$/i.test(name)) header[name] = options.header[name];
  });
  var path = options.path === undefined ? '/' : options.path.replace(/^(?!\/)/, '/');
  var call = merge(options, { url: path, header: header });
  return settle(options, 'cloud.callContainer', send(wx.request, call).then(function (answer) {
    return {
      statusCode: answer.statusCode,
      header: answer.header,
      data: answer.data,
      cookies: answer.cookies || [],
      callID: headerOf(answer, 'X-Request-Id') || '',
      errMsg: 'cloud.callContainer:ok'
    };
  }));
}

/** The number behind a button with `open-type="getPhoneNumber"`, of the event's `detail`. */
function getPhoneNumber(detail) {
  if (!detail || !(detail.code || detail.encryptedData)) {
    return Promise.reject(failure(detail, 'getPhoneNumber:fail no code'));
  }
  // A code is good once and says all; ciphertext is what old base libraries have.
  return own('POST', '/phone', detail.code ? { code: detail.code } : ciphertext(detail));
}

/** What WeChat encrypted for the phone (`encryptedData` and `iv`, and what comes with them) or keeps under a `cloudID`. */
function openData(detail) {
  return own('POST', '/open-data', detail.encryptedData ? ciphertext(detail) : { cloudID: detail.cloudID });
}

/** Who is logged in: `{openid, unionid?, appid, expires_in, started_at}`. */
function session() {
  return own('GET', '/session');
}

/** Logs in now rather than with the first request. Gives nothing: tokens are this file's business. */
function login() {
  return token().then(function () {});
}

/** Ends this session, or all of this user's with `{everywhere: true}`. The next request begins a new one. */
function logout(options) {
  var last = tokens;
  var coming = granted || Promise.resolve();
  var body = { everywhere: !!(options && options.everywhere) };
  forget();
  return coming.then(function (newer) {
    return newer ? { access: newer.access_token, refresh: newer.refresh_token } : last;
  }, function () {
    return last;
  }).then(function (ending) {
    if (!ending) return undefined;
    return post('/logout', body, ending.access).then(function (answer) {
      if (answer.statusCode !== 401) return succeeded(answer);
      // Its access token has expired, or the session has ended already.
      return post('/refresh', { refresh_token: ending.refresh }).then(function (renewed) {
        if (renewed.statusCode === 401) return undefined;
        return post('/logout', body, succeeded(renewed).data.access_token).then(succeeded);
      });
    });
  }).then(function () {});
}

function own(method, path, data) {
  return request({ url: settled().prefix + path, method: method, data: data }).then(function (answer) {
    return answer.data;
  });
}

function ciphertext(detail) {
  var picked = {};
  ['encryptedData', 'iv', 'rawData', 'signature'].forEach(function (name) {
    if (detail[name] !== undefined) picked[name] = detail[name];
  });
  return picked;
}

/** Makes a call with a token, and once more with a newer one if the first is refused. */
function send(call, options) {
  var began = generation;
  var used;
  return Promise.resolve().then(function () {
    address(options.url);
    return options.anonymous ? attempt(null) : token().then(attempt).then(retried);
  });

  function attempt(access) {
    if (began !== generation) throw loggedOut();
    used = access;
    var ours = { url: address(options.url), header: headers(options.header, access) };
    return promised(call, merge(without(options), ours), options.onTask).then(function (answer) {
      // The app's own login path and X-WX-Code bring tokens this way.
      var brought = headerOf(answer, 'X-WX-Access-Token');
      if (brought && began === generation) {
        keep(brought, headerOf(answer, 'X-WX-Refresh-Token'), headerOf(answer, 'X-WX-Expires-In'));
      }
      return answer;
    });
  }

  function retried(answer) {
    var why = answer.statusCode === 401 && errorOf(answer);
    // With an errcode it is WeChat that refused, and not the token.
    if (!why || why.errcode) return answer;
    if (began !== generation) throw loggedOut();
    return token(used, why.type === PROBLEM + 'decrypt-failed').then(attempt);
  }
}

/** A token other than `refused`. `anew` means that a refresh will not do: the session_key is too old. */
function token(refused, anew) {
  settled();
  if (tokens && tokens.access !== refused && Date.now() < tokens.until) return Promise.resolve(tokens.access);
  if (flight) return flight;
  var began = generation;
  function landed() {
    if (began === generation) flight = granted = null;
  }
  var mine = granted = tokens && !anew ? refresh(tokens.refresh) : loginAnew();
  flight = mine.then(function (pair) {
    if (began !== generation) throw loggedOut();
    keep(pair.access_token, pair.refresh_token, pair.expires_in);
    return pair.access_token;
  });
  flight.then(landed, landed);
  return flight;
}

function refresh(refreshToken) {
  return post('/refresh', { refresh_token: refreshToken }).then(function (answer) {
    // It is spent, expired or revoked (401, 409). Trouble at the server is no reason to log in.
    return answer.statusCode === 401 || answer.statusCode === 409 ? loginAnew() : pairOf(answer);
  });
}

function loginAnew() {
  return Promise.resolve().then(settings.getCode).then(function (code) {
    return post('/login', { code: code });
  }).then(pairOf);
}

function pairOf(answer) {
  var pair = succeeded(answer).data;
  if (!pair || !pair.access_token) throw failure(null, 'wx-sidecar: no token in the answer; is baseUrl right?');
  return pair;
}

function codeOfWeChat() {
  return promised(wx.login, { timeout: settings.timeout }).then(function (answer) {
    if (!answer.code) throw failure(answer, 'login:fail no code');
    return answer.code;
  });
}

/** A call of the sidecar's own, without the retry. */
function post(path, data, access) {
  return promised(wx.request, {
    url: settled().baseUrl + settings.prefix + path,
    method: 'POST',
    data: data,
    header: headers({ 'content-type': 'application/json' }, access)
  });
}

function keep(access, refreshToken, seconds) {
  var margin = Math.min(MARGIN_S, seconds / 10);
  tokens = { access: access, refresh: refreshToken, until: Date.now() + (seconds - margin) * 1000 };
  try {
    wx.setStorageSync(STORAGE_KEY, merge(tokens, { baseUrl: settings.baseUrl }));
  } catch (full) {
    // Memory will do until the Mini Program ends; the next start logs in.
  }
}

function stored() {
  try {
    var found = wx.getStorageSync(STORAGE_KEY);
    // Another baseUrl is another server, which must not see these.
    var ours = found && found.baseUrl === settings.baseUrl && found.access && found.refresh && found.until;
    return ours ? { access: found.access, refresh: found.refresh, until: found.until } : null;
  } catch (broken) {
    return null;
  }
}

function forget() {
  if (settings) {
    try {
      wx.removeStorageSync(STORAGE_KEY);
    } catch (broken) {
      // What cannot be removed is refused by the sidecar, once this session has been ended there.
    }
  }
  generation += 1;
  tokens = flight = granted = null;
  doubtful = false;
}

function loggedOut() {
  return failure(null, 'logged out meanwhile');
}

/** The whole URL. Anything but a path, or a URL below baseUrl, would give the token to somebody else. */
function address(url) {
  var base = settled().baseUrl;
  var path = url && url.indexOf(base) === 0 ? url.slice(base.length) : url;
  if (!/^\/(?!\/)/.test(path || '')) throw failure(null, 'wx-sidecar: not a path below baseUrl: ' + url);
  return base + path;
}

function settled() {
  if (!settings) throw failure(null, 'wx-sidecar: call init({ baseUrl: "https://..." }) first');
  return settings;
}

function headers(given, access) {
  var added = access ? { Authorization: 'Bearer ' + access } : {};
  if (settings.language && !headerOf({ header: given }, 'Accept-Language')) added['Accept-Language'] = settings.language;
  return merge(given, added);
}

/** The options less what is ours or means something else to wx. */
function without(options) {
  var rest = merge({ timeout: settings.timeout }, options);
  ['success', 'fail', 'complete', 'config', 'path', 'anonymous', 'onTask'].forEach(function (name) {
    delete rest[name];
  });
  if (rest.timeout === undefined) delete rest.timeout;
  return rest;
}

/** A function of wx as a promise, in every base library. */
function promised(call, options, onTask) {
  return new Promise(function (resolve, reject) {
    var task = call(merge(options, {
      success: resolve,
      fail: function (why) { reject(failure(why)); }
    }));
    if (onTask) onTask(task);
  });
}

/** Tells callbacks, if there are any, and whoever holds the promise. */
function settle(options, name, promise) {
  var callbacks = options.success || options.fail || options.complete;
  function tell(which, value) {
    if (options[which]) options[which](value);
    if (options.complete) options.complete(value);
  }
  var told = promise.then(function (answer) {
    tell('success', answer);
    return answer;
  }, function (error) {
    error.errMsg = error.errMsg || name + ':fail ' + error.message;
    tell('fail', error);
    throw error;
  });
  // Who has callbacks does not look at the promise, and an unhandled rejection is logged as a fault.
  if (callbacks) told.then(null, function () {});
  return told;
}

function succeeded(answer) {
  if (answer.statusCode >= 400) throw errorOf(answer);
  return answer;
}

/** An answer as an Error, with the members of problem+json if it has them (RFC 9457). */
function errorOf(answer) {
  var body = parsed(answer.data);
  var told = body && typeof body === 'object' ? body : {};
  var error = new Error(told.detail || told.title || 'HTTP ' + answer.statusCode);
  ['type', 'title', 'detail', 'errcode', 'errmsg', 'rid', 'class', 'retryable', 'hint', 'instance'].forEach(function (name) {
    if (told[name] !== undefined) error[name] = told[name];
  });
  error.status = answer.statusCode;
  error.data = body;
  error.header = answer.header || {};
  return error;
}

/** What wx's `fail` gets, as an Error: `.errMsg`, and no `.status`. */
function failure(why, otherwise) {
  if (why instanceof Error) return why;
  var error = new Error((why && why.errMsg) || otherwise || 'failed');
  error.errMsg = error.message;
  if (why && why.errno !== undefined) error.errno = why.errno;
  return error;
}

/** JSON of text or bytes; anything else as it is. */
function parsed(data) {
  try {
    if (data instanceof ArrayBuffer) {
      var bytes = new Uint8Array(data);
      var text = '';
      for (var i = 0; i < bytes.length; i += 1) text += String.fromCharCode(bytes[i]);
      return JSON.parse(decodeURIComponent(escape(text)));
    }
    return typeof data === 'string' ? JSON.parse(data) : data;
  } catch (other) {
    return data;
  }
}

/** A header in any case: devices differ in it. */
function headerOf(answer, name) {
  var all = answer.header || {};
  var found = Object.keys(all).filter(function (key) { return key.toLowerCase() === name.toLowerCase(); });
  return found.length ? String(all[found[0]]) : undefined;
}

function merge(first, second) {
  var all = {};
  [first, second].forEach(function (some) {
    Object.keys(some || {}).forEach(function (name) { all[name] = some[name]; });
  });
  return all;
}

var api = {
  init: init,
  request: request,
  upload: upload,
  download: download,
  connectSocket: connectSocket,
  callContainer: callContainer,
  getPhoneNumber: getPhoneNumber,
  openData: openData,
  session: session,
  login: login,
  logout: logout
};

module.exports = api;
