// The inspector as a developer uses it, in a real browser, against a running `wx-sidecar dev`.
//
//   node flows.test.js '{"page":"http://127.0.0.1:9901/inspector/","pictures":"/tmp/pictures"}'
//
// `pictures` is a folder for screenshots, `browser` another one than Chromium.
//
// Nothing sleeps: each step waits for what is on the screen. A page error or a violation of the Content-Security-Policy
// fails the test in which it happens.

'use strict';

const assert = require('node:assert/strict');
const fs = require('node:fs');
const os = require('node:os');
const path = require('node:path');
const { after, before } = require('node:test');
const puppeteer = require('puppeteer-core');
const check = require('../miniprogram/tests.js');

const place = JSON.parse(process.argv[2]);
const URL_OF_PAGE = place.page;
const PICTURES = place.pictures;
const AXE = fs.readFileSync(require.resolve('axe-core/axe.min.js'), 'utf8');
const PATIENCE = { timeout: 60_000 };

let browser;
/** What the pages of this test complained about. */
let complaints = [];

before(async () => {
  browser = await puppeteer.launch({
    executablePath: place.browser ?? '/usr/bin/chromium',
    headless: true,
    args: ['--no-sandbox', '--disable-dev-shm-usage', '--disable-component-update', '--disable-background-networking'],
  });
  if (PICTURES) fs.mkdirSync(PICTURES, { recursive: true });
});

after(() => browser?.close());

/** A test, with a browser that starts with nothing, and in which nothing may be complained about. */
function test(name, body) {
  check(name, async () => {
    complaints = [];
    try {
      await body();
    } finally {
      for (const context of browser.browserContexts()) {
        if (context !== browser.defaultBrowserContext()) await context.close();
      }
    }
    assert.deepEqual(complaints, []);
  });
}

/** The page in a browser of its own: no storage, no tokens, an empty list. */
async function inspector({ language = 'en-US', theme = 'light', width = 1280, height = 800, hash = '', keep = false } = {}) {
  if (!keep) await fetch(`${URL_OF_PAGE}clear`, { method: 'POST' });
  const context = await browser.createBrowserContext();
  await context.overridePermissions(new URL(URL_OF_PAGE).origin, ['clipboard-read', 'clipboard-write', 'clipboard-sanitized-write']);
  const page = await context.newPage();
  page.on('pageerror', (error) => complaints.push(`page: ${error.message}`));
  page.on('console', (message) => {
    // That an answer was a 401 or the server away is what some tests are about.
    if (message.type() === 'error' && !/^Failed to load resource/.test(message.text())) complaints.push(`console: ${message.text()}`);
  });
  const devtools = await page.createCDPSession();
  await devtools.send('Emulation.setUserAgentOverride', { userAgent: await browser.userAgent(), acceptLanguage: language });
  await page.emulateMediaFeatures([{ name: 'prefers-color-scheme', value: theme }, { name: 'prefers-reduced-motion', value: 'reduce' }]);
  await page.setViewport({ width, height });
  await page.goto(URL_OF_PAGE + hash);
  await page.waitForSelector('.device', PATIENCE);
  await page.waitForSelector('#link.good', PATIENCE);
  return page;
}

/** Keeps what is on the screen; what is light is kept as it is at night, too. */
async function picture(page, name) {
  if (!PICTURES) return;
  const take = (as) => page.screenshot({ path: path.join(PICTURES, `${as}.png`) });
  await take(name);
  if (!name.includes('-light-')) return;
  const set = (theme) => page.evaluate((it) => { document.documentElement.dataset.theme = it; }, theme);
  await set('dark');
  await take(name.replace('-light-', '-dark-'));
  await set('light');
}

/** Presses a button on the phone. */
async function press(page, tab, act) {
  await page.click(`#tab-${tab}`);
  // In one go: what the phone says of the last button may move this one while a pointer is on its way to it.
  await page.$eval(`[data-act="act.${act}"]`, (button) => {
    button.scrollIntoView({ block: 'center' });
    const { left, top, width, height } = button.getBoundingClientRect();
    const hit = document.elementFromPoint(left + width / 2, top + height / 2);
    if (!button.contains(hit)) throw new Error(`something else is there: ${hit?.outerHTML.slice(0, 200)}`);
    button.click();
  });
}

/** Waits until `selector` holds an element that has `text`; gives the text of that element. */
async function see(page, selector, text) {
  const found = await page.waitForFunction((css, wanted) => {
    const shown = [...document.querySelectorAll(css)].filter((it) => it.checkVisibility());
    return shown.map((it) => it.innerText).find((it) => it.includes(wanted));
  }, PATIENCE, selector, text).catch(async (error) => {
    const there = await page.$$eval(selector, (all) => all.map((it) => it.innerText));
    throw new Error(`no ${selector} says ${JSON.stringify(text)}; there is ${JSON.stringify(there)}`, { cause: error });
  });
  return found.jsonValue();
}

/** Opens the newest exchange with this target. */
async function openRow(page, target) {
  await see(page, '.row .target', target);
  await page.evaluate((wanted) => {
    [...document.querySelectorAll('.row')].find((row) => row.querySelector('.target').textContent.split('?')[0] === wanted).click();
  }, target);
  await see(page, '#detail h2', target);
  await page.waitForSelector('#detail .part', PATIENCE);
}

const visibleRows = (page) => page.$$eval('.row', (rows) => rows.filter((row) => row.checkVisibility({ contentVisibilityAuto: false }) && !row.hidden).map((row) => row.querySelector('.target').textContent));

const rowsOf = (page, target) => page.$$eval('.row', (rows, wanted) => rows.filter((row) => row.querySelector('.target').textContent === wanted).length, target);

/** A request of the phone's that this page did not make. */
const fromElsewhere = (target, options) => fetch(`${URL_OF_PAGE}phone/sidecar${target}`, options);

test('the empty page says what to do first', async () => {
  const page = await inspector();
  await see(page, '#empty', 'Nothing has come by yet');
  await see(page, '#empty', 'curl -s');
  await see(page, '#overview', 'Requests per second');
  await see(page, '#overview', 'wx0123456789abcdef');
  await picture(page, 'empty-light-en');
});

test('a login on the phone is one call to WeChat, and shows no secret', async () => {
  const page = await inspector();
  await press(page, 'me', 'login');
  await see(page, '.said-box', 'alice is logged in');
  await openRow(page, '/wx/login');
  await see(page, '[data-spot="wechat"]', '/sns/jscode2session');
  await see(page, '.who-line', 'alice is logged in');
  const all = await page.$eval('#detail', (it) => it.textContent);
  assert.match(all, /access_token/);
  assert.doesNotMatch(all, /wxat_|session_key":/);
  await picture(page, 'login-light-en');
});

test('the true openid is shown as added, and a forged one as removed', async () => {
  const page = await inspector();
  await page.click('#tab-app');
  await page.click('#forged');
  await press(page, 'app', 'send');
  await see(page, '.said-box', 'the app knows that this is alice');
  await openRow(page, '/api/whoami');
  const removed = await see(page, '.diff tr.removed', 'oForgedByTheClient');
  assert.match(removed, /−/);
  const added = await page.$$eval('.diff tr.added', (rows) => rows.map((row) => row.innerText));
  assert.ok(added.some((row) => /x-wx-openid/i.test(row) && /\+/.test(row)), added.join('\n'));
  await see(page, '#detail .legend', 'app');
  await picture(page, 'enriched-light-en');
});

test('a phone number is decrypted, by code and by ciphertext', async () => {
  const page = await inspector();
  for (const way of ['number.cipher', 'number.code']) {
    await press(page, 'me', way);
    await see(page, '.said-box', 'The number is 1');
    const number = /\d{11}/.exec(await page.$eval('.said-box', (it) => it.innerText))[0];
    await openRow(page, '/wx/phone');
    await see(page, '[data-spot="open"] .big', number);
    await see(page, '[data-spot="open"] .json', 'watermark');
    await page.keyboard.press('Escape');
  }
  await openRow(page, '/wx/phone');
  await picture(page, 'phone-number-light-en');
});

test('ciphertext in a body is plaintext when the app gets it', async () => {
  const page = await inspector();
  await press(page, 'me', 'number.app');
  await see(page, '.said-box', 'The phone sent ciphertext, the app got the number');
  const number = /1\d{10}/.exec(await page.$eval('.said-box', (it) => it.innerText))[0];
  await openRow(page, '/phone');
  await see(page, '[data-spot="open"] .big', number);
  const bodies = await page.$$eval('#detail .json', (all) => all.map((it) => it.textContent));
  assert.ok(bodies.some((it) => it.includes('encryptedData') && !it.includes(number)), 'what the phone sent');
  assert.ok(bodies.some((it) => it.includes(number) && !it.includes('encryptedData')), 'what the app got');
  await page.keyboard.press('Escape');
});

test('an uploaded picture comes back and is displayed', async () => {
  const page = await inspector();
  await press(page, 'picture', 'sample');
  await see(page, '.said-box', 'WeChat keeps it');
  const loaded = () => page.waitForFunction(() => document.querySelector('.said-box img')?.naturalWidth === 320, PATIENCE);
  await loaded();
  const folder = fs.mkdtempSync(path.join(os.tmpdir(), 'inspector-'));
  const chosen = path.join(folder, '头像.png');
  // One red pixel.
  fs.writeFileSync(chosen, Buffer.from('iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mP8z8BQDwAEhQGAhKmMIQAAAABJRU5ErkJggg==', 'base64'));
  await (await page.$('#picture-file')).uploadFile(chosen);
  await page.waitForFunction(() => document.querySelector('.said-box img')?.naturalWidth === 1, PATIENCE);
  await openRow(page, '/wx/media');
  await see(page, '#detail', 'media_id');
  await picture(page, 'picture-light-en');
  fs.rmSync(folder, { recursive: true });
});

test('a message to customer service is shown decrypted, and replayed', async () => {
  const page = await inspector();
  await page.click('#tab-chat');
  await page.$eval('#message', (it) => { it.value = ''; });
  await page.type('#message', 'Is the shop open? 今天营业吗');
  await press(page, 'chat', 'message');
  await see(page, '.said-box', 'Delivered to the app');
  await openRow(page, 'text');
  await see(page, '[data-spot="push"] .json', 'Is the shop open? 今天营业吗');
  await see(page, '.row .badge', 'delivered');
  assert.equal((await page.$$('.attempts tr')).length, 1);
  await page.locator('[data-key="replay"]').click();
  await page.waitForFunction(() => document.querySelectorAll('.attempts tr').length === 2, PATIENCE);
  await picture(page, 'push-light-en');
});

test("the app's calls to WeChat appear, with what WeChat said", async () => {
  const page = await inspector();
  await press(page, 'wechat', 'wxacode');
  await see(page, '.said-box', 'WeChat drew a code');
  await page.waitForFunction(() => document.querySelector('.said-box img')?.naturalWidth > 0, PATIENCE);
  await openRow(page, '/wxa/getwxacodeunlimit');
  await page.waitForFunction(() => document.querySelector('#detail img.picture')?.naturalWidth > 0, PATIENCE);
  await press(page, 'wechat', 'subscribe');
  await see(page, '.said-box', 'WeChat takes the message');
  await openRow(page, '/cgi-bin/message/subscribe/send');
  await see(page, '[data-spot="wechat"]', 'ok');
});

test('a WebSocket goes through to the app, and back', async () => {
  const page = await inspector();
  await press(page, 'chat', 'connect');
  await see(page, '.said-box', 'Connected');
  await page.type('#ws-line', 'hello 你好');
  await page.keyboard.press('Enter');
  await see(page, 'ol.lines .app', 'hello 你好');
  await page.click('[data-act="act.connect"]');
  await see(page, 'ol.lines', 'closed');
  await openRow(page, '/ws');
  await see(page, '#detail h2', '101');
});

test("WeChat's refusal is explained in English and in Chinese", async () => {
  const page = await inspector();
  await page.click('#tab-wechat');
  await page.click('#fault-code');
  await see(page, '.said-box', 'From now on: Code invalid (40029)');
  await press(page, 'me', 'login');
  await see(page, '.said-box', 'It failed (401)');
  await openRow(page, '/wx/login');
  await see(page, '.row .badge', 'errcode 40029');
  await see(page, '[data-spot="problem"]', 'call wx.login again');
  await picture(page, 'fault-light-en');
  await page.click('#language');
  await see(page, '[data-spot="problem"]', '请重新调用 wx.login');
  await picture(page, 'fault-light-zh');
  await page.click('#tab-wechat');
  await page.click('#fault-none');
  await see(page, '.said-box', '微信恢复正常');
  await press(page, 'me', 'login');
  await see(page, '.said-box', 'alice 已登录');
});

test('an expired token is refreshed by the helper', async () => {
  const page = await inspector();
  await press(page, 'me', 'login');
  await see(page, '.said-box', 'alice is logged in');
  await press(page, 'me', 'expire');
  await see(page, '.who-line', 'has expired');
  await press(page, 'app', 'send');
  await see(page, '.said-box', 'the app knows that this is alice');
  await see(page, '.row .target', '/wx/refresh');
  assert.equal(await rowsOf(page, '/wx/login'), 1);
});

test('another session_key is repaired by a new login', async () => {
  const page = await inspector();
  await press(page, 'me', 'login');
  await see(page, '.said-box', 'alice is logged in');
  await press(page, 'me', 'rotate');
  await see(page, '.said-box', 'new session_key');
  await press(page, 'me', 'logout');
  await see(page, '.who-line', 'alice is not logged in');
  await press(page, 'me', 'number.cipher');
  await see(page, '.said-box', 'The number is 1');
});

test('users are apart, and a new one can be added', async () => {
  const page = await inspector();
  await press(page, 'me', 'login');
  await see(page, '.said-box', 'alice is logged in');
  await page.click('.user.add');
  await page.type('.new-user', 'dora');
  await page.keyboard.press('Enter');
  await see(page, '.who-line', 'dora is not logged in');
  await press(page, 'app', 'send');
  await see(page, '.said-box', 'the app knows that this is dora');
  await see(page, '.row .who', 'dora');
  await page.click('.user:first-child');
  await see(page, '.who-line', 'alice is logged in');
});

test('the list is searched and filtered', async () => {
  const page = await inspector();
  await press(page, 'app', 'send');
  await see(page, '.said-box', 'the app knows');
  await press(page, 'wechat', 'subscribe');
  await see(page, '.said-box', 'WeChat takes the message');
  await fromElsewhere('/api/without-a-token');
  await see(page, '.row .target', '/api/without-a-token');
  await see(page, '.row .status', '401');
  await page.type('#search', 'whoami');
  assert.deepEqual(await visibleRows(page), ['/api/whoami']);
  await page.$eval('#search', (it) => { it.value = '401'; it.dispatchEvent(new Event('input')); });
  assert.deepEqual(await visibleRows(page), ['/api/without-a-token']);
  await page.$eval('#search', (it) => { it.value = 'nothing-is-called-so'; it.dispatchEvent(new Event('input')); });
  await see(page, '#empty', 'Nothing fits');
  await page.click('#empty button');
  await page.click('[data-kind="call"]');
  assert.deepEqual(await visibleRows(page), ['/cgi-bin/message/subscribe/send']);
  await page.click('[data-kind=""]');
  await page.click('#errors');
  assert.deepEqual(await visibleRows(page), ['/api/without-a-token']);
});

test('a request id is found', async () => {
  const page = await inspector();
  const answer = await fromElsewhere('/public/one');
  await fromElsewhere('/public/two');
  await see(page, '.row .target', '/public/two');
  await page.type('#search', answer.headers.get('x-request-id'));
  await page.waitForFunction(() => [...document.querySelectorAll('.row:not([hidden]) .target')].map((it) => it.textContent).join() === '/public/one', PATIENCE);
});

test('a refusal of the sidecar’s own says what to do', async () => {
  const page = await inspector();
  await fromElsewhere('/api/private');
  await openRow(page, '/api/private');
  await see(page, '[data-spot="problem"]', 'An access token is required');
  await see(page, '[data-spot="problem"]', 'log in with POST /wx/login');
  await see(page, '#detail', 'The app has not seen this request');
});

test('the keyboard is enough', async () => {
  const page = await inspector();
  await fromElsewhere('/public/one');
  await see(page, '.row .target', '/public/one');
  await fromElsewhere('/public/two');
  await see(page, '.row .target', '/public/two');
  await page.keyboard.press('j');
  await page.keyboard.press('j');
  await page.keyboard.press('Enter');
  await see(page, '#detail h2', '/public/one');
  await page.keyboard.press('k');
  await see(page, '#detail h2', '/public/two');
  assert.equal(await page.$eval('.row[aria-selected="true"] .target', (it) => it.textContent), '/public/two');
  await page.keyboard.press('Escape');
  await see(page, '#overview', 'Requests per second');
  await page.keyboard.press('/');
  assert.equal(await page.evaluate(() => document.activeElement.id), 'search');
  await page.keyboard.type('one');
  await page.keyboard.press('Escape');
  assert.deepEqual(await visibleRows(page), ['/public/one']);
  await page.keyboard.press('?');
  await see(page, '#keys', 'Keyboard shortcuts');
  await page.keyboard.press('Escape');
  await page.waitForFunction(() => !document.getElementById('keys').open, PATIENCE);
});

test('a request is copied as curl, with a variable for what is masked', async () => {
  const page = await inspector();
  await page.click('#tab-app');
  await page.select('.joined select', 'POST');
  await page.$eval('#app-body', (it) => { it.value = '{"say": "it\'s \\"you\\""}'; });
  await press(page, 'app', 'send');
  await see(page, '.said-box', 'the app knows');
  await openRow(page, '/api/whoami');
  await page.bringToFront();
  await page.locator('[data-key="curl"]').click();
  await see(page, '#toast', '$TOKEN');
  const curl = await page.evaluate(() => navigator.clipboard.readText());
  assert.match(curl, /^curl -ig 'http:\/\/127\.0\.0\.1:\d+\/api\/whoami'/);
  assert.match(curl, /-H '[Aa]uthorization: Bearer '"\$TOKEN"/);
  assert.doesNotMatch(curl, /\*\*\*/);
  assert.match(curl, /--data-raw '\{"say":"it'\\''s \\"you\\""\}'/);
});

test('pausing holds the list, and resuming shows what came meanwhile', async () => {
  const page = await inspector();
  await page.click('#pause');
  await fromElsewhere('/public/while-paused');
  await see(page, '#pause', 'Resume · 1 new');
  assert.deepEqual(await visibleRows(page), []);
  await page.click('#pause');
  await see(page, '.row .target', '/public/while-paused');
  await page.click('#clear');
  await see(page, '#empty', 'Nothing has come by yet');
});

test('hostile content is text', async () => {
  const page = await inspector();
  const evil = '<img src=x onerror="window.hacked=1"><script>window.hacked=1</script>';
  await fromElsewhere(`/public/${encodeURIComponent(evil)}?q=${evil.replaceAll(' ', '+')}`, { method: 'POST', headers: { 'content-type': 'text/html', 'x-evil': evil }, body: evil });
  await see(page, '.row .target', '/public/');
  await page.locator('.row').click();
  await see(page, '#detail', evil);
  await page.click('#tab-chat');
  await page.$eval('#message', (it, text) => { it.value = text; }, evil);
  await press(page, 'chat', 'message');
  await see(page, '.said-box', 'Delivered');
  await openRow(page, 'text');
  await see(page, '[data-spot="push"]', 'window.hacked');
  assert.equal(await page.$$eval('#detail img, #detail script, .row img', (all) => all.length), 0);
  assert.equal(await page.evaluate(() => window.hacked), undefined);
});

test('large and binary bodies are cut and folded, and the page stays quick', async () => {
  const page = await inspector();
  await fromElsewhere('/public/bytes', { method: 'POST', headers: { 'content-type': 'application/octet-stream' }, body: Buffer.from([0, 255, 254, 1, 2]) });
  await openRow(page, '/public/bytes');
  await see(page, '#detail .bytes', '00 ff fe 01 02');
  await fromElsewhere('/public/large', { method: 'POST', headers: { 'content-type': 'application/json' }, body: JSON.stringify({ all: 'x'.repeat(200_000) }) });
  await openRow(page, '/public/large');
  await see(page, '#detail .note', '195.3 KiB');
  const numbers = JSON.stringify({ id: 1, list: Array.from({ length: 500 }, (_, n) => n) });
  await fromElsewhere('/public/many', { method: 'POST', headers: { 'content-type': 'application/json' }, body: numbers.replace('"id":1', '"id":1234567890123456789') });
  await openRow(page, '/public/many');
  // More digits than a number of JavaScript's has.
  await see(page, '#detail .json', '1234567890123456789');
  await see(page, '#detail .json', '500 members');
  await Promise.all(Array.from({ length: 300 }, (_, n) => fromElsewhere(`/public/burst/${n}`)));
  await page.waitForFunction(() => document.querySelectorAll('.row').length >= 300, PATIENCE);
});

test('what is no longer kept is said to be gone', async () => {
  const page = await inspector();
  await fromElsewhere('/public/short-lived');
  await see(page, '.row .target', '/public/short-lived');
  await page.setRequestInterception(true);
  page.on('request', (request) => (/exchanges\/\d+$/.test(request.url()) ? request.respond({ status: 404 }) : request.continue()));
  await page.locator('.row').click();
  await see(page, '#detail', 'no longer keeps this one');
});

test('a lost connection is said, and found again', async () => {
  const page = await inspector();
  await page.setOfflineMode(true);
  await fromElsewhere('/public/unseen');
  await see(page, '#link', 'cannot be reached');
  await page.setOfflineMode(false);
  await see(page, '#link', 'live');
  await see(page, '.row .target', '/public/unseen');
});

test('an admin token is asked for, once', async () => {
  const context = await browser.createBrowserContext();
  const page = await context.newPage();
  await page.setRequestInterception(true);
  page.on('request', (request) => {
    const guarded = /\/(exchanges|state)/.test(request.url());
    if (guarded && request.headers().authorization !== 'Bearer correct horse') request.respond({ status: 401, body: 'no' });
    else request.continue();
  });
  await page.goto(URL_OF_PAGE);
  await see(page, '#ask-token', 'The admin token');
  await page.type('#token', 'wrong');
  await page.keyboard.press('Enter');
  await see(page, '#token-wrong', 'refused');
  await page.type('#token', 'correct horse');
  await page.keyboard.press('Enter');
  await page.waitForSelector('#link.good', PATIENCE);
  assert.equal(await page.$eval('#ask-token', (it) => it.open), false);
});

test('why the server does not tell is said in its own words', async () => {
  const context = await browser.createBrowserContext();
  const page = await context.newPage();
  await page.setRequestInterception(true);
  let why = 'this can be reached from other machines; set a token in [admin]';
  page.on('request', (request) => {
    const guarded = /\/(exchanges|state)/.test(request.url());
    if (guarded && why) request.respond({ status: 403, body: `${why}\n` });
    else request.continue();
  });
  await page.goto(URL_OF_PAGE);
  await see(page, '#link', 'does not tell: this can be reached from other machines; set a token in [admin]');
  why = 'another reason';
  await page.click('#retry');
  await see(page, '#link', 'another reason');
  why = null;
  await page.click('#retry');
  await page.waitForSelector('#link.good', PATIENCE);
});

test('a refused configuration is told in full', async () => {
  const context = await browser.createBrowserContext();
  const page = await context.newPage();
  await page.setViewport({ width: 1280, height: 800 });
  const state = await (await fetch(`${URL_OF_PAGE}state`)).json();
  state.config.refused = { at: 1_764_400_000, why: 'error: unknown key `upstrem`\n  --> sidecar.toml:7:1\n   | did you mean `upstream`?' };
  state.held_back = ['/wxa/getwxacodeunlimit: 45009 until midnight'];
  state.phone = null;
  await page.setRequestInterception(true);
  page.on('request', (request) => (/\/state$/.test(request.url()) ? request.respond({ contentType: 'application/json', body: JSON.stringify(state) }) : request.continue()));
  await page.goto(URL_OF_PAGE);
  await see(page, '#overview .problem pre', 'did you mean `upstream`?');
  await see(page, '#overview', '45009 until midnight');
  assert.equal(await page.$('.device'), null);
  await page.click('.effective summary');
  await see(page, '.effective', 'inbound.upstream');
  await picture(page, 'production-light-en');
});

for (const [language, step, end] of [
  ['en-US', (n, all) => `Step ${n} of ${all}`, 'That is all there is to it'],
  ['zh-CN', (n, all) => `第 ${n} 步，共 ${all} 步`, '就是这些'],
]) {
  test(`the tour goes to its end (${language})`, async () => {
    const page = await inspector({ hash: '#tour', language });
    const steps = 7;
    for (let n = 1; n <= steps; n += 1) {
      await see(page, '#tour', step(n, steps));
      // By keyboard: the button is where Tab leads to.
      await page.focus('#tour-do');
      await page.keyboard.press('Enter');
      await page.waitForSelector('#tour-next', PATIENCE);
      await page.waitForSelector('#detail .spot', PATIENCE);
      await picture(page, `tour-${n}-light-${language.slice(0, 2)}`);
      await page.keyboard.press('Enter');
    }
    await see(page, '#tour', end);
    await page.keyboard.press('Escape');
    await page.waitForFunction(() => document.getElementById('tour').hidden, PATIENCE);
    assert.equal(await page.$('#fault-none').then((it) => it.evaluate((radio) => radio.checked)), true);
  });
}

test('everything is there in Chinese, and at night', async () => {
  const page = await inspector({ language: 'zh-CN', theme: 'dark' });
  await see(page, '#empty', '还没有流量');
  await picture(page, 'empty-dark-zh');
  await press(page, 'app', 'send');
  await see(page, '.said-box', '后端知道这是 alice');
  await openRow(page, '/api/whoami');
  await see(page, '[data-spot="compare"]', '手机发出');
  await picture(page, 'enriched-dark-zh');
  await press(page, 'chat', 'message');
  await see(page, '.said-box', '送达后端');
  await openRow(page, 'text');
  await picture(page, 'push-dark-zh');
  assert.equal(await page.$eval('html', (it) => it.dataset.theme), 'dark');
  assert.equal(await page.$eval('html', (it) => it.lang), 'zh-CN');
  await page.click('#theme');
  assert.equal(await page.$eval('html', (it) => it.dataset.theme), 'light');
});

test('a narrow window keeps list and phone, and lays the detail above', async () => {
  const page = await inspector({ width: 900 });
  await press(page, 'app', 'send');
  await see(page, '.said-box', 'the app knows');
  await openRow(page, '/api/whoami');
  await picture(page, 'narrow-light-en');
  const wide = await page.evaluate(() => document.documentElement.scrollWidth);
  assert.ok(wide <= 900, `${wide}`);
  await page.keyboard.press('Escape');
  await page.waitForFunction(() => !document.querySelector('#pane').checkVisibility(), PATIENCE);
});

for (const theme of ['light', 'dark']) {
  test(`nothing hinders those who see or move less (${theme})`, async () => {
    const page = await inspector({ theme });
    const check = async (where) => {
      const found = await page.evaluate(`${AXE}; axe.run(document, { runOnly: ['wcag2a', 'wcag2aa', 'wcag21aa', 'best-practice'] })`);
      const grave = found.violations.filter((it) => ['serious', 'critical'].includes(it.impact));
      assert.deepEqual(grave.map((it) => `${where}: ${it.id}: ${it.nodes.map((node) => `${node.html} ${node.any[0]?.message ?? ''}`).join('\n')}`), []);
    };
    await check('empty');
    await page.click('#tab-app');
    await page.click('#forged');
    await press(page, 'app', 'send');
    await see(page, '.said-box', 'the app knows');
    await openRow(page, '/api/whoami');
    await check('a request');
    await fromElsewhere('/api/private');
    await openRow(page, '/api/private');
    await check('a problem');
    await press(page, 'chat', 'message');
    await see(page, '.said-box', 'Delivered');
    await openRow(page, 'text');
    await check('a push');
    await press(page, 'me', 'number.cipher');
    await see(page, '.said-box', 'The number');
    await openRow(page, '/wx/phone');
    await check('decrypted data');
    for (const tab of ['picture', 'wechat']) {
      await page.click(`#tab-${tab}`);
      await check(tab);
    }
    await page.click('#tour-start');
    await check('the tour');
    await page.keyboard.press('Escape');
    await page.keyboard.press('?');
    await check('the keys');
  });
}
