// The sample Mini Program on a phone (wx.js), with `wx-sidecar dev` and a backend of examples/backends behind it. Its
// files are run as they stand, but for the addresses in app.js.
'use strict';

const assert = require('node:assert/strict');
const fs = require('node:fs');
const path = require('node:path');
const check = require('./tests.js');
const { Phone, HELPER, ask } = require('./wx.js');

const place = JSON.parse(process.argv[2]);
const ROOT = path.dirname(HELPER);
const read = (name) => fs.readFileSync(path.join(ROOT, name), 'utf8');

/** The Mini Program, launched. Both files get the same helper, as modules are loaded once. */
function launch() {
  const phone = new Phone(place.simulator, 'alice');
  const helper = phone.load();
  let app;
  let page;
  const at = path.join(place.folder, 'app.js');
  const source = read('app.js').replace('http://127.0.0.1:8080', place.sidecar).replace('http://127.0.0.1:9902', place.simulator);
  fs.writeFileSync(at, source);
  const globals = {
    App: (it) => { app = it; },
    Page: (it) => { page = it; },
    getApp: () => app,
    require: (name) => {
      assert.match(name, /wx-sidecar\.js$/);
      return helper;
    },
  };
  Object.assign(phone.wx, {
    chooseMedia: ({ success }) => success({ tempFiles: [{ tempFilePath: phone.picture }] }),
    requestSubscribeMessage: ({ complete }) => complete({ errMsg: 'requestSubscribeMessage:ok' }),
  });
  phone.load(at, globals);
  app.onLaunch();
  phone.load(path.join(ROOT, 'pages/index/index.js'), globals);
  page.setData = (data) => Object.assign(page.data, data);
  return { phone, page };
}

check('every button does what it says', async () => {
  const { phone, page } = launch();
  await page.whoAmI();
  const { users } = JSON.parse((await ask(`${place.simulator}/_sim/users`)).body);
  const alice = users.find((it) => it.name === 'alice');
  assert.deepEqual([page.data.error, page.data.me.openid], ['', alice.apps[0].openid]);
  // Codes came from the simulator and not from wx.login.
  assert.equal(phone.logins, 0);

  await page.onPhoneNumber({ detail: { errMsg: 'getPhoneNumber:ok' } });
  assert.deepEqual([page.data.error, page.data.phoneNumber], ['', alice.phone]);

  phone.picture = path.join(place.folder, 'cat.png');
  const png = 'iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNkYPhfDwAChwGA60e6kgAAAABJRU5ErkJggg==';
  fs.writeFileSync(phone.picture, Buffer.from(png, 'base64'));
  await page.uploadPicture();
  assert.equal(page.data.error, '');
  assert.equal((await ask(page.data.picture)).status, 200);

  await page.notify();
  assert.deepEqual([page.data.error, page.data.notified], ['', true]);
  await page.logout();
  assert.deepEqual([page.data.me, page.data.error], [null, '']);
  assert.equal(phone.count('POST /wx/login'), 1);
});

check('what goes wrong is on the page', async () => {
  const { phone, page } = launch();
  await page.whoAmI();
  phone.picture = path.join(place.folder, 'no-picture.txt');
  fs.writeFileSync(phone.picture, 'no picture');
  await page.uploadPicture();
  assert.notEqual(page.data.error, '');
  await page.whoAmI();
  assert.equal(page.data.error, '');
  await ask(`${place.simulator}/_sim/users/alice`, { method: 'POST', body: '{"subscribed":false}' });
  await page.notify();
  assert.match(page.data.error, /requestSubscribeMessage/);
});

check('what the page binds exists, and what is configured does', async () => {
  const { page } = launch();
  const markup = read('pages/index/index.wxml');
  const bound = [...markup.matchAll(/bind\w+="(\w+)"/g)].map((it) => it[1]);
  assert.ok(bound.length >= 5);
  for (const name of bound) assert.equal(typeof page[name], 'function', name);
  for (const [, name] of markup.matchAll(/\{\{(\w+)/g)) assert.ok(name in page.data, name);
  for (const name of JSON.parse(read('app.json')).pages) {
    for (const kind of ['js', 'wxml', 'wxss', 'json']) assert.ok(fs.existsSync(path.join(ROOT, `${name}.${kind}`)));
  }
  assert.equal(JSON.parse(read('project.config.json')).appid, 'touristappid');
});
