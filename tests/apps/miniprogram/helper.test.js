// wx-sidecar.js on a phone (wx.js) against the real sidecar and the simulator. The test that starts this names them in
// its argument, and with `control` the place where the clock that both share is turned.
'use strict';

const assert = require('node:assert/strict');
const fs = require('node:fs');
const startApp = require('./app.js');
const check = require('./tests.js');
const { Phone, ask, HELPER } = require('./wx.js');

const place = JSON.parse(process.argv[2]);
let users = 0;
let app;

/** A new user's phone, and the helper on it, ready. */
function phone(options) {
  users += 1;
  const one = new Phone(place.simulator, `user${users}`);
  one.sidecar = one.load().init({ baseUrl: place.sidecar, ...options });
  return one;
}

/** The helper as after a restart of the Mini Program. */
function restarted(one, options) {
  one.sidecar = one.load().init({ baseUrl: place.sidecar, ...options });
  return one;
}

async function simulator(path, order) {
  const body = order && JSON.stringify(order);
  const answer = await ask(place.simulator + path, { method: order ? 'POST' : 'GET', body });
  assert.equal(answer.status, 200, answer.body.toString());
  return JSON.parse(answer.body);
}

async function openidOf(user) {
  const { users: all } = await simulator('/_sim/users');
  return all.find((it) => it.name === user).apps[0].openid;
}

async function codesExchanged() {
  const { counts } = await callsOfWeChat();
  return counts['/sns/jscode2session'] || 0;
}

async function callsOfWeChat() {
  const calls = await simulator('/_sim/calls');
  return { counts: calls.counts || calls };
}

async function advance(seconds) {
  const answer = await ask(place.control, { method: 'POST', body: String(seconds) });
  assert.equal(answer.status, 200);
}

/** So many requests at once; what the app says of each user. */
function many(count, one, path = '/me') {
  return Promise.all(Array.from({ length: count }, () => one.sidecar.request({ url: path }).then((it) => it.data.openid)));
}

function seenBy(one, path, openid) {
  return app.seen.filter((it) => it.path === path && it.openid === openid);
}

/** The error that a promise is rejected with. */
async function errorOf(promise) {
  try {
    await promise;
  } catch (error) {
    assert.ok(error instanceof Error, String(error));
    return error;
  }
  return assert.fail('it succeeded');
}

const picture = () => {
  const file = `${place.folder}/猫 1.png`;
  const png = 'iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNkYPhfDwAChwGA60e6kgAAAABJRU5ErkJggg==';
  fs.writeFileSync(file, Buffer.from(png, 'base64'));
  return file;
};

check('the app starts', async () => {
  app = await startApp(place.app);
});

check('fifty requests at once cost one login', async () => {
  const one = phone();
  const before = await codesExchanged();
  const answers = await many(50, one);
  const openid = await openidOf(one.user);
  assert.deepEqual(new Set(answers), new Set([openid]));
  assert.deepEqual([one.logins, one.count('POST /wx/login'), one.count('GET /me')], [1, 1, 50]);
  assert.equal(await codesExchanged() - before, 1);
});

check('errors are told in the language that is asked for', async () => {
  const of = async (options, header) => {
    const failed = await errorOf(phone(options).sidecar.request({ url: '/wx/nothing', header }));
    return [failed.title, failed.detail].join(' ');
  };
  assert.equal(await of({}), 'No such endpoint the sidecar has no such endpoint');
  assert.match(await of({ language: 'zh-CN' }), /没有这个接口 .*没有这个接口/);
  assert.match(await of({ language: 'zh-CN' }, { 'accept-language': 'en' }), /^No such endpoint/);
});

check('an access token that has expired costs one refresh for fifty requests', async () => {
  const one = phone();
  await many(1, one);
  await advance(2 * 3600 + 1);
  assert.equal((await many(50, one)).length, 50);
  assert.deepEqual([one.logins, one.count('POST /wx/refresh'), one.count('GET /me')], [1, 1, 101]);
});

check('a token that the phone knows to have expired is not tried first', async () => {
  const one = phone();
  await many(1, one);
  one.ahead = (2 * 3600 - 20) * 1000;
  await advance(2 * 3600 + 1);
  assert.equal((await many(50, one)).length, 50);
  assert.deepEqual([one.logins, one.count('POST /wx/refresh'), one.count('GET /me')], [1, 1, 51]);
});

check('a refresh that is refused costs one login for fifty requests', async () => {
  const one = phone();
  await many(1, one);
  const other = new Phone(place.simulator, one.user);
  await other.load().init({ baseUrl: place.sidecar }).logout();
  const second = restarted(other).sidecar;
  await second.login();
  await second.logout({ everywhere: true });
  const openid = await openidOf(one.user);
  assert.deepEqual(new Set(await many(50, one)), new Set([openid]));
  assert.deepEqual([one.logins, one.count('POST /wx/refresh'), one.count('POST /wx/login')], [2, 1, 2]);
  assert.deepEqual([one.count('GET /me')], [101]);
});

check('the tokens live through a restart of the Mini Program, and one that is not its own server is not shown them', async () => {
  const one = phone();
  await many(1, one);
  await many(1, restarted(one));
  assert.equal(one.logins, 1);
  const elsewhere = restarted(one, { baseUrl: place.sidecar.replace('127.0.0.1', 'localhost') });
  await many(1, elsewhere);
  assert.equal(one.logins, 2);
});

check("the app's own 401 is passed on after one retry, each time", async () => {
  const one = phone();
  for (const times of [1, 2]) {
    const error = await errorOf(one.sidecar.request({ url: '/no' }));
    assert.deepEqual([error.status, error.data], [401, { error: 'the app says no' }]);
    assert.equal(one.count('GET /no'), 2 * times);
    assert.equal(one.count('POST /wx/refresh'), times);
  }
  assert.equal(seenBy(one, '/no', await openidOf(one.user)).length, 4);
  assert.equal(one.logins, 1);
});

check('what fails at the app is told once and not repeated', async () => {
  const one = phone();
  const broken = await errorOf(one.sidecar.request({ url: '/broken' }));
  assert.deepEqual([broken.status, broken.data, broken.message], [500, { error: 'broken' }, 'HTTP 500']);
  assert.equal(one.count('GET /broken'), 1);
  const teapot = await errorOf(one.sidecar.request({ url: '/problem', responseType: 'arraybuffer' }));
  assert.deepEqual([teapot.status, teapot.type, teapot.detail, teapot.message], [418, 'urn:app:teapot', '我是茶壶', '我是茶壶']);
  const gone = await errorOf(one.sidecar.request({ url: '/gone', method: 'POST', data: {} }));
  assert.equal(gone.status, 502);
  assert.match(gone.type, /^urn:wx-sidecar:problem:upstream-/);
  assert.match(gone.instance, /./);
  assert.match(gone.errMsg, /^request:fail /);
});

check('a phone without a network is told so, and goes on with the same session afterwards', async () => {
  const one = phone();
  one.offline = true;
  const first = await errorOf(one.sidecar.request({ url: '/me' }));
  assert.deepEqual([first.status, first.errMsg, first.errno], [undefined, 'request:fail the phone is offline', 5]);
  one.offline = false;
  await many(1, one);
  await advance(2 * 3600 + 1);
  one.lose = '/wx/refresh';
  const errors = await Promise.all(Array.from({ length: 10 }, () => errorOf(one.sidecar.request({ url: '/me' }))));
  assert.deepEqual(new Set(errors.map((it) => it.errMsg)), new Set(['request:fail socket hang up']));
  assert.equal(one.count('POST /wx/refresh'), 1);
  one.lose = null;
  const before = one.logins;
  // Within the second the sidecar takes the lost answer for one that somebody else has; that costs a login.
  await many(5, one);
  assert.equal(one.logins, before + 1);
});

check('trouble at the server during a refresh is no reason to log in', async () => {
  const one = phone();
  await many(1, one);
  await advance(2 * 3600 + 1);
  const real = one.wx.request;
  one.wx.request = (options) => {
    if (!options.url.endsWith('/wx/refresh')) return real(options);
    return setImmediate(() => options.success({ statusCode: 503, data: { title: 'Store unavailable' }, header: {} }));
  };
  const error = await errorOf(one.sidecar.request({ url: '/me' }));
  assert.deepEqual([error.status, error.message, one.logins], [503, 'Store unavailable', 1]);
  one.wx.request = real;
  await many(1, one);
  assert.deepEqual([one.logins, one.count('POST /wx/refresh')], [1, 1]);
});

check('a login that fails is told to all who wait, and tried again by the next', async () => {
  const one = phone();
  one.loginFails = true;
  const errors = await Promise.all(Array.from({ length: 5 }, () => errorOf(one.sidecar.request({ url: '/me' }))));
  assert.deepEqual(new Set(errors.map((it) => it.errMsg)), new Set(['login:fail system error']));
  assert.deepEqual([errors[0].errno, one.logins], [600001, 1]);
  one.loginFails = false;
  await many(1, one);
  assert.equal(one.logins, 2);
});

check('a login that WeChat refuses is told with its errcode', async () => {
  const one = phone();
  await simulator(`/_sim/users/${one.user}`, { blocked: true });
  const error = await errorOf(one.sidecar.login());
  assert.deepEqual([error.status, error.errcode], [403, 40226]);
  assert.equal(one.logins, 1);
  const made = phone({ getCode: () => 'made-up' });
  const refused = await errorOf(made.sidecar.request({ url: '/me' }));
  assert.deepEqual([refused.status, refused.errcode, made.logins, made.calls], [401, 40029, 0, ['POST /wx/login']]);
  assert.match(refused.hint, /wx\.login/);
});

check('storage that is broken costs nothing but a login at the next start', async () => {
  const one = phone();
  one.brokenStorage = true;
  restarted(one);
  await many(20, one);
  await advance(2 * 3600 + 1);
  await many(20, one);
  assert.deepEqual([one.logins, one.count('POST /wx/refresh')], [1, 1]);
  await one.sidecar.logout();
  await many(1, restarted(one));
  assert.equal(one.logins, 2);
  one.brokenStorage = false;
  for (const rubbish of ['text', 7, null, { baseUrl: place.sidecar }, { baseUrl: place.sidecar, access: 'wxat_x', until: 1 }]) {
    one.wx.setStorageSync('wx-sidecar', rubbish);
    await many(1, restarted(one));
  }
  one.wx.setStorageSync('wx-sidecar', { baseUrl: place.sidecar, access: 'wxat_x', refresh: 'wxrt_x', until: Date.now() + 1e6 });
  assert.equal(new Set(await many(10, restarted(one))).size, 1);
});

check('two users on two phones do not mix', async () => {
  const [one, other] = [phone(), phone()];
  const [mine, theirs] = await Promise.all([many(30, one), many(30, other)]);
  assert.deepEqual(new Set(mine), new Set([await openidOf(one.user)]));
  assert.deepEqual(new Set(theirs), new Set([await openidOf(other.user)]));
  assert.notEqual(mine[0], theirs[0]);
});

check('what was begun before a logout never goes on as the next user', async () => {
  const one = phone();
  const first = one.user;
  await many(1, one);
  await advance(2 * 3600 + 1);
  const waiting = many(10, one).catch((error) => error);
  // They have been refused and wait for one refresh when the user leaves.
  while (one.count('POST /wx/refresh') === 0) await new Promise(setImmediate);
  const out = one.sidecar.logout();
  one.user = `${first}-next`;
  const next = await many(10, one);
  const error = await waiting;
  await out;
  assert.equal(error.message, 'logged out meanwhile');
  assert.deepEqual(new Set(next), new Set([await openidOf(one.user)]));
  assert.equal(seenBy(one, '/me', await openidOf(first)).length, 1);
  // And nothing of the first one is kept.
  await many(1, restarted(one));
  assert.deepEqual(await many(1, one), [next[0]]);
});

check('a logout ends the session at the sidecar, and the next request begins another', async () => {
  const one = phone();
  await many(1, one);
  const kept = one.wx.getStorageSync('wx-sidecar');
  await one.sidecar.logout();
  assert.equal(one.wx.getStorageSync('wx-sidecar'), '');
  const old = await ask(`${place.sidecar}/me`, { header: { authorization: `Bearer ${kept.access}` } });
  assert.equal(old.status, 401);
  await one.sidecar.logout();
  assert.equal(one.count('POST /wx/logout'), 1);
  await many(1, one);
  assert.equal(one.logins, 2);
});

check('a logout with an access token that has expired ends the session too', async () => {
  const one = phone();
  await many(1, one);
  const kept = one.wx.getStorageSync('wx-sidecar');
  await advance(2 * 3600 + 1);
  await one.sidecar.logout();
  const body = JSON.stringify({ refresh_token: kept.refresh });
  await advance(5);
  const old = await ask(`${place.sidecar}/wx/refresh`, { method: 'POST', body });
  assert.equal(old.status, 401);
  assert.equal(one.logins, 1);
});

check('a logout during the first login ends what that brings', async () => {
  const one = phone();
  const waiting = errorOf(one.sidecar.request({ url: '/me' }));
  while (one.count('POST /wx/login') === 0) await new Promise(setImmediate);
  await one.sidecar.logout();
  assert.equal((await waiting).message, 'logged out meanwhile');
  assert.equal(one.count('POST /wx/logout'), 1);
  assert.equal(one.wx.getStorageSync('wx-sidecar'), '');
});

check('a logout that cannot be told is forgotten on the phone, and an error', async () => {
  const one = phone();
  await many(1, one);
  one.offline = true;
  assert.equal((await errorOf(one.sidecar.logout())).errMsg, 'request:fail the phone is offline');
  assert.equal(one.wx.getStorageSync('wx-sidecar'), '');
});

check('the token goes to no other server', async () => {
  const one = phone();
  for (const url of ['https://evil.example/me', `${place.sidecar}.evil.example/`, `${place.sidecar}@evil.example/`, '@evil.example', '//evil.example/', 'me', '', undefined]) {
    assert.match((await errorOf(one.sidecar.request({ url }))).message, /not a path below baseUrl/);
    assert.match((await errorOf(one.sidecar.connectSocket({ url }))).message, /not a path below baseUrl/);
  }
  assert.equal(one.calls.length, 0);
  assert.equal((await one.sidecar.request({ url: `${place.sidecar}/me` })).statusCode, 200);
});

check('a picture goes to WeChat and comes back by a URL without a token', async () => {
  const one = phone();
  const { data, statusCode } = await one.sidecar.upload({ filePath: picture() });
  assert.deepEqual([statusCode, data.type, data.filename], [200, 'image', '猫 1.png']);
  const back = await ask(data.url);
  assert.equal(back.status, 200);
  assert.ok(back.body.equals(fs.readFileSync(picture())));
  await advance(2 * 3600 + 1);
  await one.sidecar.upload({ filePath: picture() });
  assert.deepEqual([one.logins, one.count('POST /wx/refresh'), one.count('POST /wx/media')], [1, 1, 3]);
  fs.writeFileSync(`${place.folder}/text.txt`, 'no picture');
  const refused = await errorOf(one.sidecar.upload({ filePath: `${place.folder}/text.txt` }));
  assert.equal(refused.status, 415);
  assert.match(refused.type, /^urn:wx-sidecar:problem:/);
});

check('a file goes to the app with the fields of its form', async () => {
  const one = phone();
  const tasks = [];
  const { data } = await one.sidecar.upload({
    url: '/forms', name: 'photo', filePath: picture(), formData: { title: '标题' }, onTask: (task) => tasks.push(task),
  });
  assert.equal(data.openid, await openidOf(one.user));
  assert.match(data.body, /name="title"\r\n\r\n标题\r\n/);
  assert.match(data.body, /name="photo"; filename="猫 1.png"/);
  assert.equal(typeof tasks[0].abort, 'function');
});

check('a download is a file, with a token that had expired', async () => {
  const one = phone();
  await many(1, one);
  await advance(2 * 3600 + 1);
  const { tempFilePath } = await one.sidecar.download({ url: '/file' });
  assert.deepEqual([...fs.readFileSync(tempFilePath)], [0x89, 0x50, 0, 0xff]);
  assert.equal((await errorOf(one.sidecar.download({ url: '/broken' }))).status, 500);
  assert.deepEqual([one.logins, one.count('POST /wx/refresh')], [1, 1]);
});

/** Connects, says a word and gives what was heard; or the error. */
async function chat(one, word) {
  const task = await one.sidecar.connectSocket({ url: '/chat' });
  return new Promise((resolve, reject) => {
    const heard = [];
    task.onError(({ errMsg }) => reject(new Error(errMsg)));
    task.onMessage(({ data }) => {
      heard.push(data);
      if (heard.length === 1) return task.send({ data: word });
      task.close();
      return resolve(heard);
    });
  });
}

check('a WebSocket knows the user', async () => {
  const one = phone();
  const heard = await chat(one, '你好');
  const openid = await openidOf(one.user);
  assert.deepEqual(heard, [`hello ${openid}`, `${openid} says 你好`]);
  one.ahead = 2 * 3600 * 1000;
  await advance(2 * 3600 + 1);
  await chat(one, 'again');
  assert.deepEqual([one.logins, one.count('POST /wx/refresh'), one.count('SOCKET /chat')], [1, 1, 2]);
});

check('a WebSocket whose token was refused gets another when the app connects again', async () => {
  const one = phone();
  await many(1, one);
  await advance(2 * 3600 + 1);
  await errorOf(chat(one, 'refused'));
  const heard = await chat(one, 'again');
  assert.equal(heard.length, 2);
  assert.deepEqual([one.logins, one.count('POST /wx/refresh'), one.count('GET /wx/session')], [1, 1, 2]);
  await chat(one, 'and again');
  assert.equal(one.count('GET /wx/session'), 2);
});

check('the phone number comes of a code and of ciphertext', async () => {
  const one = phone();
  await one.sidecar.login();
  const phoneNumber = (await simulator('/_sim/users')).users.find((it) => it.name === one.user).phone;
  const { code } = await simulator('/_sim/code', { user: one.user, kind: 'phone' });
  assert.equal((await one.sidecar.getPhoneNumber({ code, errMsg: 'getPhoneNumber:ok' })).phoneNumber, phoneNumber);
  const detail = await simulator('/_sim/encrypt', { user: one.user, kind: 'phone' });
  const { encryptedData, iv } = detail;
  assert.equal((await one.sidecar.getPhoneNumber({ encryptedData, iv })).phoneNumber, phoneNumber);
  const denied = await errorOf(one.sidecar.getPhoneNumber({ errMsg: 'getPhoneNumber:fail user deny' }));
  assert.equal(denied.errMsg, 'getPhoneNumber:fail user deny');
  const spent = await errorOf(one.sidecar.getPhoneNumber({ code }));
  assert.ok(spent.errcode, spent.message);
  assert.equal(one.count('POST /wx/phone'), 3);
  assert.equal(one.logins, 1);
});

check('open data of a session_key that the sidecar has not seen costs one login', async () => {
  const one = phone();
  const detail = async (kind) => (await simulator('/_sim/encrypt', { user: one.user, kind }));
  await one.sidecar.login();
  const { cloudID, ...run } = await detail('werun');
  assert.ok(Array.isArray((await one.sidecar.openData(run)).stepInfoList));
  assert.equal((await one.sidecar.openData({ cloudID })).openid === undefined, true);
  await simulator(`/_sim/users/${one.user}`, { rotate: true });
  const newer = await detail('werun');
  assert.ok((await one.sidecar.openData(newer)).stepInfoList);
  assert.deepEqual([one.logins, one.count('POST /wx/refresh')], [2, 0]);
  const rubbish = await errorOf(one.sidecar.openData({ encryptedData: 'AAAAAAAAAAAAAAAAAAAAAA==', iv: newer.iv }));
  assert.deepEqual([rubbish.status, rubbish.type], [401, 'urn:wx-sidecar:problem:decrypt-failed']);
  assert.equal(one.logins, 3);
});

check('who I am is told by the sidecar', async () => {
  const one = phone();
  const me = await one.sidecar.session();
  assert.equal(me.openid, await openidOf(one.user));
});

check("tokens of the app's own login path are kept", async () => {
  const one = phone();
  const { code } = await simulator(`/_sim/code?user=${one.user}`);
  const { data } = await one.sidecar.request({ url: '/auth/login', method: 'POST', data: { code }, anonymous: true });
  assert.deepEqual(await many(3, one), [data.openid, data.openid, data.openid]);
  assert.deepEqual([one.logins, one.count('POST /wx/login')], [0, 0]);
});

check('an anonymous request has no token and costs no login', async () => {
  const one = phone();
  const { data } = await one.sidecar.request({ url: '/public/hello', anonymous: true });
  assert.deepEqual([data.openid, one.logins], [null, 0]);
  assert.equal((await errorOf(one.sidecar.request({ url: '/me', anonymous: true }))).status, 401);
  assert.deepEqual(one.calls, ['GET /public/hello', 'GET /me']);
});

check('callbacks are called as those of wx are, once each', async () => {
  const one = phone();
  const told = [];
  const tell = (which) => (value) => told.push([which, value.statusCode || value.status]);
  const both = (url) => new Promise((resolve) => {
    one.sidecar.request({ url, success: tell('success'), fail: tell('fail'), complete: (it) => resolve(tell('complete')(it)) });
  });
  await both('/me');
  await both('/broken');
  assert.deepEqual(told, [['success', 200], ['complete', 200], ['fail', 500], ['complete', 500]]);
  // One that fails with callbacks and nobody at the promise is no unhandled rejection, which would end this process.
  await new Promise((resolve) => { one.sidecar.request({ url: '/broken', fail: resolve }); });
  await new Promise(setImmediate);
});

check('callContainer takes and gives what that of CloudRun does', async () => {
  const one = phone();
  const code = {
    config: { env: 'prod-01' }, path: '/api/echo?x=1', method: 'POST', dataType: 'json', responseType: 'text', timeout: 5000,
    header: { 'X-WX-SERVICE': 'my-service', 'content-type': 'application/json', 'X-Other': 'kept' }, data: { a: '中' },
  };
  const answer = await one.sidecar.callContainer(code);
  assert.deepEqual(Object.keys(answer).sort(), ['callID', 'cookies', 'data', 'errMsg', 'header', 'statusCode']);
  assert.deepEqual([answer.statusCode, answer.errMsg], [200, 'cloud.callContainer:ok']);
  const saw = answer.data;
  assert.deepEqual([saw.url, saw.body, saw.headers['x-other'], saw.headers['x-wx-service']], ['/api/echo?x=1', '{"a":"中"}', 'kept', undefined]);
  assert.equal(saw.openid, await openidOf(one.user));
  assert.equal(answer.callID, saw.headers['x-request-id']);

  for (const [path, status] of [['/no', 401], ['/broken', 500], ['broken', 500]]) {
    assert.equal((await one.sidecar.callContainer({ path })).statusCode, status);
  }
  assert.deepEqual((await one.sidecar.callContainer({ path: '/cookie' })).cookies, ['a=b']);
  const bytes = await one.sidecar.callContainer({ path: '/file', responseType: 'arraybuffer' });
  assert.deepEqual([...new Uint8Array(bytes.data)], [0x89, 0x50, 0, 0xff]);
  const query = await one.sidecar.callContainer({ path: '/api/echo', data: { q: '1' } });
  assert.equal(query.data.url, '/api/echo?q=1');

  const told = [];
  await new Promise((resolve) => {
    one.sidecar.callContainer({ path: '/me', success: (it) => told.push(it.statusCode), complete: resolve });
  });
  assert.deepEqual(told, [200]);
  one.offline = true;
  assert.match((await errorOf(one.sidecar.callContainer({ path: '/me' }))).errMsg, /fail the phone is offline/);
});

check('code for CloudRun moves by changing one line', async () => {
  const one = phone();
  // As in the app.js of WeChat's own template, but for the line that makes `cloud`.
  const app1 = {
    async call(obj) {
      if (this.cloud == null) {
        const cloud = one.load().init({ baseUrl: place.sidecar });
        this.cloud = cloud;
        await this.cloud.init();
      }
      const result = await this.cloud.callContainer({
        path: obj.path, method: obj.method || 'GET', dataType: 'text', header: { 'X-WX-SERVICE': 'xxx' }, timeout: 60000,
      });
      return result.data;
    },
  };
  const said = JSON.parse(await app1.call({ path: '/me' }));
  assert.equal(said.openid, await openidOf(one.user));
  await app1.call({ path: '/me' });
  assert.equal(one.logins, 1);
});

check('it says what is missing: init, and a sidecar at baseUrl', async () => {
  const bare = new Phone(place.simulator, 'nobody').load();
  assert.throws(() => bare.init(), /baseUrl/);
  assert.throws(() => bare.init({ baseUrl: 'api.example.com' }), /baseUrl/);
  assert.match((await errorOf(bare.request({ url: '/me' }))).message, /init/);
  const one = phone({ baseUrl: place.simulator, prefix: '/_sim/code?user=alice&' });
  assert.ok(await errorOf(one.sidecar.request({ url: '/me' })));
});

check('it is written in what every base library takes, and is small', async () => {
  const source = fs.readFileSync(HELPER, 'utf8');
  const code = source.replace(/\/\*[^]*?\*\//g, '').replace(/^\s*\/\/.*$/gm, '').replace(/'[^'\n]*'/g, "''");
  for (const newer of [/=>/, /`/, /\b(?:const|let|class|async|await|import|export)\b/, /\.\.\./, /\?\./, /\?\?/, /\bfinally\b/]) {
    assert.equal((code.match(newer) || [])[0], undefined);
  }
  assert.ok(code.length < 12_000, `${code.length} characters without comments`);
  const types = fs.readFileSync(HELPER.replace(/js$/, 'd.ts'), 'utf8');
  for (const name of Object.keys(new Phone('', '').load())) {
    assert.match(types, new RegExp(`^export const ${name}: Sidecar\\['${name}'\\];$`, 'm'));
  }
});

check('the app ends', async () => {
  app.close();
});
