// The virtual phone: several users with the real helper of a Mini Program, the app's own calls to WeChat, and WeChat's
// moods. Each action tells what came of it in human words, with the line of code that does the same, and the exchange it
// caused.

import { announce, byId, fill, h, icon, statusChip } from './dom.js';
import { light, names, redraw } from './list.js';
import { ask, log, state } from './server.js';
import { language, t } from './words.js';
import { control, Device, relayed } from './wx.js';

const box = byId('phone');
const devices = new Map();
let current = null;
let tab = 'me';
let busy = false;
let open = () => {};
let socket = null;
/** WeChat's mood. */
let fault = '';
const parts = {};

const TABS = {
  me: 'M8 8.5a3 3 0 1 0 0-6 3 3 0 0 0 0 6zM2.5 14c.6-2.8 2.7-4 5.5-4s4.9 1.2 5.500 4',
  app: 'M2 4h9M8 1l3 3-3 3M14 12H5M8 9l-3 3 3 3',
  picture: 'M2 3h12v10H2zM2 11l3.500-4 3 3 2-2L14 11M10.500 6h.01',
  chat: 'M2 3h12v8H7l-3 3v-3H2z',
  wechat: 'M8 14a6 6 0 1 0-6-6M8 5v3.500l2.500 1.500M2 11v3h3',
};

/** Draws the phone, once the state says that there is one. */
export function startPhone(onOpen) {
  open = onOpen;
  const begin = () => {
    if (!state.now?.phone || current) return;
    box.hidden = false;
    document.body.classList.add('has-phone');
    byId('tour-start').hidden = false;
    for (const name of ['alice', 'bob', 'carol']) devices.set(name, new Device(name, state.now.phone));
    current = devices.get('alice');
    build();
    knowUsers();
    knowFault();
  };
  state.addEventListener('change', begin);
}

export const hasPhone = () => current !== null;

/** Openids by name, for the list: of users whom somebody else made, too. */
async function knowUsers() {
  const { users } = await control('users').catch(() => ({ users: [] }));
  for (const user of users) for (const app of user.apps ?? []) names.set(app.openid, user.name);
  redraw();
}

/** The page may have been loaded again while WeChat was not well. */
async function knowFault() {
  const { faults } = await control('faults').catch(() => ({ faults: [] }));
  const same = ({ effect, paths }) => Object.entries(effect).every(([key, value]) => faults[0].fault[key] === value) && paths.includes(faults[0].path);
  fault = faults.length ? Object.keys(FAULTS).find((name) => same(FAULTS[name])) ?? '' : '';
  byId(`fault-${fault || 'none'}`).checked = true;
}

let asked = 0;
log.addEventListener('change', (event) => {
  const stranger = event.detail.some((it) => it.user && !names.has(it.user));
  // Users that are none of the simulator's stay unknown; do not ask all the time.
  if (stranger && current && Date.now() - asked > 3000) {
    asked = Date.now();
    knowUsers();
  }
});

function build() {
  parts.users = h('div', { class: 'users', role: 'group', tLabel: 'phone.users' });
  parts.who = h('p', { class: 'who-line' });
  parts.said = h('div', { class: 'said-box' });
  parts.panels = h('div', { class: 'panels' }, Object.keys(TABS).map((name) =>
    h('div', { role: 'tabpanel', id: `panel-${name}`, 'aria-labelledby': `tab-${name}`, class: 'panel', hidden: name !== tab }, PANELS[name]())));
  parts.tabs = h('div', { class: 'tabs', role: 'tablist', tLabel: 'phone.tabs' }, Object.entries(TABS).map(([name, d]) =>
    h('button', { role: 'tab', id: `tab-${name}`, 'aria-controls': `panel-${name}`, on: { click: () => showTab(name) } }, icon(d), h('span', { t: `tab.${name}` }))));
  parts.tabs.addEventListener('keydown', (event) => {
    const by = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (!by) return;
    const all = Object.keys(TABS);
    showTab(all[(all.indexOf(tab) + by + all.length) % all.length]);
    byId(`tab-${tab}`).focus();
  });
  fill(box, h('div', { class: 'device' },
    h('div', { class: 'notch' }, h('span', { t: 'phone.title' }), h('span', { class: 'capsule', 'aria-hidden': 'true' }, '••• ', '◉')),
    parts.users, parts.who, parts.panels, parts.said, parts.tabs));
  showTab(tab);
  drawUsers();
  say('info', 'said.start', {}, null);
}

function drawUsers() {
  fill(parts.users, [...devices.values()].map((device) => h('button', { class: `user${device === current ? ' current' : ''}`, 'aria-pressed': String(device === current), on: { click: () => use(device.user) } },
    h('span', { class: 'avatar', 'aria-hidden': 'true', text: device.user.slice(0, 1).toUpperCase() }), device.user)),
  h('button', { class: 'user add', tLabel: 'phone.add', text: '+', on: { click: addUser } }));
  drawWho();
}

function drawWho() {
  const inside = current.tokens;
  parts.who.className = `who-line${inside ? ' inside' : ''}`;
  parts.who.textContent = inside ? t(inside.until > Date.now() ? 'who.in' : 'who.expired', { user: current.user }) : t('who.out', { user: current.user });
}

function use(name) {
  if (!devices.has(name)) devices.set(name, new Device(name, state.now.phone));
  const focused = parts.users.contains(document.activeElement);
  current = devices.get(name);
  socket?.close({});
  drawUsers();
  if (focused) parts.users.querySelector('.current').focus();
}

function addUser() {
  const field = h('input', { class: 'new-user', maxlength: '24', tLabel: 'phone.add', tPlaceholder: 'phone.name.hint' });
  let done = false;
  const finish = (keep) => {
    if (done) return;
    done = true;
    // Names go into the simulator's paths.
    const name = field.value.trim().replace(/[^\p{L}\p{N}_-]/gu, '');
    if (keep && name) use(name);
    else drawUsers();
  };
  field.addEventListener('keydown', (event) => {
    if (event.key === 'Enter') finish(true);
    if (event.key === 'Escape') { event.stopPropagation(); finish(false); }
  });
  field.addEventListener('blur', () => finish(true));
  parts.users.lastElementChild.replaceWith(field);
  field.focus();
}

function showTab(name) {
  tab = name;
  for (const other of Object.keys(TABS)) {
    byId(`panel-${other}`).hidden = other !== name;
    byId(`tab-${other}`).setAttribute('aria-selected', String(other === name));
    byId(`tab-${other}`).tabIndex = other === name ? 0 : -1;
  }
}

/** What came of an action, in the phone. Kept as keys, so that it follows the language. */
let last = null;
function say(look, key, params, code, more = null, entry = null) {
  last = { look, key, params, code, more, entry };
  drawSaid();
  if (look !== 'info') announce(saidText(last));
}

const saidText = ({ key, params }) => t(key, Object.fromEntries(Object.entries(params).map(([name, value]) => [name, typeof value === 'function' ? value() : value])));

function drawSaid() {
  const { look, code, more, entry } = last;
  const shape = { good: '✓', bad: '✕', info: 'i', busy: '…' }[look];
  fill(parts.said,
    h('div', { class: `bubble ${look}` }, h('span', { class: 'shape', 'aria-hidden': 'true', text: shape }), h('div', { class: 'words' }, h('p', { text: saidText(last) }), more)),
    entry && h('button', { class: 'link-like to-entry', on: { click: () => open(entry.id) } }, t('said.entry', { id: entry.id }), ' ', statusChip(entry), ' ', h('span', { class: 'method', text: entry.method }), ' ', entry.target),
    code && h('div', { class: 'line-of-code' }, h('span', { class: 'fine', t: code.startsWith('fetch') ? 'said.app-code' : 'said.code' }), h('pre', { class: 'code', tabindex: '0', text: code })));
}

export function redrawPhone() {
  if (!current) return;
  drawUsers();
  drawSaid();
  // Unless somebody has written something else.
  if (!parts.text.dataset.touched) parts.text.value = t('chat.hello');
}

/**
 * Does something as the phone does it. `work` gives `{key, params, more}`; what it throws is told as the phone would get
 * it. Gives the exchange that `fits`, as soon as the list has it, or null.
 */
async function act(code, fits, work) {
  if (busy) return null;
  busy = true;
  box.setAttribute('aria-busy', 'true');
  const from = log.newest;
  const dark = light();
  say('busy', 'said.busy', {}, code);
  let outcome;
  try {
    const done = await work();
    outcome = [done.look ?? 'good', done.key, done.params ?? {}, done.code ?? code, done.more ?? null];
  } catch (error) {
    outcome = ['bad', error.hint ? 'said.failed.hint' : 'said.failed', { what: () => error.detail ?? error.message, hint: error.hint, status: error.status ?? '–' }, code];
  }
  busy = false;
  box.removeAttribute('aria-busy');
  drawUsers();
  say(...outcome);
  dark();
  if (!fits) return null;
  const entry = await log.appears((it) => fits(it) && (it.state === 'done' || it.status), from, 4000) ?? await log.appears(fits, from, 1);
  if (!entry || last.key !== outcome[1]) return entry;
  last.entry = entry;
  if (last.look === 'bad') await explain(last, entry.id);
  drawSaid();
  return entry;
}

/** What WeChat's refusal means, in the page's language, and in the next one, too. */
async function explain(said, id) {
  const detail = await ask(`exchanges/${id}`).then((it) => it.json(), () => ({}));
  const known = detail.failure?.errcode ? detail.failure : detail.wechat?.findLast((call) => call.errcode);
  if (!known?.title) return;
  said.params.what = () => known.title[language()];
  if (!known.hint) return;
  said.key = 'said.failed.hint';
  said.params.hint = () => known.hint[language()];
}

const to = (path, kind = 'request') => (it) => it.kind === kind && it.target.split('?')[0] === path;
const own = (path) => to(state.now.phone.prefix + path);

/** Everything the phone can do. Each gives the exchange it caused. */
export const actions = {
  use,
  tab: showTab,

  login: () => act('await sidecar.login()', own('/login'), async () => {
    // Whoever presses it again wants to see it again.
    if (current.tokens) {
      current.restart();
      current.storage.clear();
    }
    await (await current.sidecar()).login();
    names.set(current.openid, current.user);
    redraw();
    return { key: 'said.login', params: { user: current.user } };
  }),

  logout: () => act('await sidecar.logout()', own('/logout'), async () => {
    if (!current.tokens) return { look: 'info', key: 'said.logout.none', params: { user: current.user } };
    await (await current.sidecar()).logout();
    return { key: 'said.logout', params: { user: current.user } };
  }),

  expire: () => act(null, null, async () => {
    const tokens = current.tokens;
    if (!tokens) return { look: 'info', key: 'said.logout.none', params: { user: current.user } };
    // The helper goes by the phone's clock: a token that ended in its storage is one that ended.
    current.restart();
    current.storage.set('wx-sidecar', { ...tokens, until: Date.now() - 1000 });
    return { look: 'info', key: 'said.expired' };
  }),

  rotate: () => act(null, null, async () => {
    await current.code();
    await control(`users/${encodeURIComponent(current.user)}`, { rotate: true });
    return { look: 'info', key: 'said.rotated', params: { user: current.user } };
  }),

  phoneByCode: () => act('const { purePhoneNumber } = await sidecar.getPhoneNumber(e.detail)', own('/phone'), async () => {
    const helper = await current.sidecar();
    return { key: 'said.phone', params: { number: numberOf(await helper.getPhoneNumber({ code: await current.code('phone') })) } };
  }),

  phoneByCiphertext: () => act('const { purePhoneNumber } = await sidecar.getPhoneNumber(e.detail)', own('/phone'), async () => {
    const helper = await current.sidecar();
    // WeChat encrypts with the key of a login.
    await helper.login();
    const detail = await control('encrypt', { user: current.user, kind: 'phone' });
    return { key: 'said.phone', params: { number: numberOf(await helper.getPhoneNumber(detail)) } };
  }),

  phoneToApp: () => act("await sidecar.request({ url: '/phone', method: 'POST', data: { phone: e.detail } })", to('/phone'), async () => {
    const helper = await current.sidecar();
    await helper.login();
    const { encryptedData, iv } = await control('encrypt', { user: current.user, kind: 'phone' });
    const answer = await helper.request({ url: '/phone', method: 'POST', data: { phone: { encryptedData, iv } } });
    const body = typeof answer.data === 'string' ? answer.data : JSON.stringify(answer.data, null, 1);
    return { key: 'said.phone.app', more: h('pre', { class: 'code answer', tabindex: '0', text: body.slice(0, 1500) }) };
  }),

  call: (method, path, data, forged) => {
    const options = [`url: '${path}'`];
    if (method !== 'GET') options.push(`method: '${method}'`);
    if (data !== undefined) options.push(`data: ${JSON.stringify(data)}`);
    if (forged) options.push(`header: { 'X-WX-OPENID': 'forged' }`);
    return act(`const { data } = await sidecar.request({ ${options.join(', ')} })`, to(path.split('?')[0]), async () => {
      const answer = await (await current.sidecar()).request({ url: path, method, data, header: forged ? { 'X-WX-OPENID': 'oForgedByTheClient' } : {} });
      const body = typeof answer.data === 'string' ? answer.data : JSON.stringify(answer.data, null, 1);
      return { key: answer.data?.openid ? 'said.knows' : 'said.answered', params: { status: answer.statusCode, user: current.user }, more: h('pre', { class: 'code answer', tabindex: '0', text: body.slice(0, 1500) }) };
    });
  },

  upload: (blob, name) => act("const { data } = await sidecar.upload({ filePath })", own('/media'), async () => {
    const answer = await (await current.sidecar()).upload({ filePath: current.keep(blob, name) });
    const picture = h('img', { class: 'picture', src: relayed(current.where, answer.data.url), alt: t('picture.alt') });
    return { key: 'said.uploaded', params: { id: `${answer.data.media_id.slice(0, 10)}…` }, more: picture };
  }),

  samplePicture: async () => actions.upload(await draw(current.user), `${current.user}.jpg`),

  message: (content) => act('<button open-type="contact">', (it) => it.kind === 'push', async () => {
    await current.code();
    return pushed(await control('push', { kind: 'text', user: current.user, content }), 'said.message');
  }),

  event: () => act('wx.requestSubscribeMessage({ tmplIds })', (it) => it.kind === 'push', async () => {
    await current.code();
    return pushed(await control('push', { kind: 'event', user: current.user, sample: 'subscribe_popup_many' }), 'said.event');
  }),

  connect: () => act("const task = await sidecar.connectSocket({ url: '/ws' })", to('/ws'), async () => {
    const helper = await current.sidecar();
    const task = await helper.connectSocket({ url: '/ws' });
    await new Promise((resolve, reject) => {
      task.onOpen(resolve);
      task.onClose(() => reject(new Error(t('said.ws.refused'))));
    });
    socket = task;
    parts.lines.replaceChildren();
    task.onMessage(({ data }) => line('app', data));
    task.onClose(() => {
      socket = null;
      line('', t('ws.closed'));
      drawSocket();
    });
    drawSocket();
    return { key: 'said.ws' };
  }),

  wxacode: () => act(`fetch('${state.now.phone.outbound}/wxa/getwxacodeunlimit', { method: 'POST', body: '{"scene":"table=7","width":280}' })`, to('/wxa/getwxacodeunlimit', 'call'), async () => {
    const answer = await outbound('/wxa/getwxacodeunlimit', { scene: 'table=7', width: 280 });
    const url = URL.createObjectURL(await answer.blob());
    return { key: 'said.wxacode', more: h('img', { class: 'picture', src: url, alt: t('wxacode.alt'), on: { load: () => URL.revokeObjectURL(url) } }) };
  }),

  subscribe: () => act(`fetch('${state.now.phone.outbound}/cgi-bin/message/subscribe/send', { method: 'POST', body })`, to('/cgi-bin/message/subscribe/send', 'call'), async () => {
    await current.code();
    await outbound('/cgi-bin/message/subscribe/send', { touser: current.openid, template_id: 'TEMPLATE', page: 'pages/index', data: { thing1: { value: 'hello' } } });
    return { key: 'said.subscribe', params: { user: current.user } };
  }),

  fault: async (name) => {
    if (busy) {
      byId(`fault-${fault || 'none'}`).checked = true;
      return null;
    }
    const before = fault;
    fault = name;
    const chosen = byId(`fault-${name || 'none'}`);
    if (chosen) chosen.checked = true;
    return act(null, null, async () => {
      await control('faults', null, 'DELETE');
      if (!name) {
        // WeChat's own way to give a quota back; the sidecar goes by it, and calls again.
        if (before === 'quota' || state.now.held_back?.length) await fetch('phone/outbound/cgi-bin/clear_quota/v2', { method: 'POST', body: '{}', headers: { 'content-type': 'application/json' } });
        await state.refresh();
        return { key: state.now.held_back?.length ? 'said.well.held' : 'said.well' };
      }
      const { effect, paths, count } = FAULTS[name];
      for (const path of paths) await control('faults', { path, count: count ?? 'forever', fault: effect });
      return { look: 'info', key: 'said.fault', params: { fault: () => t(`fault.${name}`), then: () => t(paths === LOGIN ? 'said.fault.login' : paths === TOKEN ? 'said.fault.token' : paths === APP ? 'said.fault.app' : 'said.fault.any') } };
    });
  },
};

const LOGIN = ['/sns/jscode2session', '/wxa/business/getuserphonenumber'];
const APP = ['/wxa/getwxacodeunlimit', '/cgi-bin/message/subscribe/send'];
const ANY = [...LOGIN, ...APP, '/cgi-bin/media/upload'];
const TOKEN = [APP[0]];

/** What WeChat can be made to do, and to which calls. */
const FAULTS = {
  busy: { effect: { errcode: -1 }, paths: ANY },
  slow: { effect: { delay_ms: 3000 }, paths: ANY },
  code: { effect: { errcode: 40029 }, paths: LOGIN },
  secret: { effect: { errcode: 40125 }, paths: LOGIN },
  token: { effect: { errcode: 40001 }, paths: TOKEN, count: 1 },
  quota: { effect: { errcode: 45009 }, paths: APP },
  rate: { effect: { errcode: 45011 }, paths: ANY },
  address: { effect: { errcode: 40164 }, paths: APP },
  garbage: { effect: { garbage: true }, paths: ANY },
  reset: { effect: { reset: true }, paths: ANY },
};

function pushed(told, key) {
  const tries = told.tries ?? [];
  if (!told.accepted) throw new Error(t('said.push.refused', { status: tries.at(-1)?.status ?? '–' }));
  return { key, params: { user: current.user, ms: Math.max(1, Math.round(tries.at(-1)?.ms ?? 0)) } };
}

/** As the app calls WeChat. What WeChat refuses is thrown, in the language of the page. */
async function outbound(path, body) {
  const answer = await fetch(`phone/outbound${path}`, { method: 'POST', body: JSON.stringify(body), headers: { 'content-type': 'application/json', accept: 'application/problem+json, */*', 'accept-language': language() === 'zh' ? 'zh-CN' : 'en' } });
  // WeChat says 200 to its refusals.
  const errcode = answer.headers.get('x-wx-errcode');
  if (!answer.ok || errcode) {
    const told = await answer.json().catch(() => ({}));
    throw Object.assign(new Error(told.title ?? (errcode ? `errcode ${errcode}: ${told.errmsg ?? ''}` : `HTTP ${answer.status}`)), { detail: told.detail, hint: told.hint, status: answer.status });
  }
  return answer;
}

const numberOf = (data) => data.phone_info?.purePhoneNumber ?? data.purePhoneNumber ?? data.phoneNumber ?? JSON.stringify(data);

/** A small picture that is another each time. */
function draw(user) {
  const canvas = document.createElement('canvas');
  canvas.width = 320;
  canvas.height = 180;
  const pen = canvas.getContext('2d');
  const hue = Math.floor(Math.random() * 360);
  const sky = pen.createLinearGradient(0, 0, 320, 180);
  sky.addColorStop(0, `hsl(${hue} 60% 45%)`);
  sky.addColorStop(1, `hsl(${(hue + 60) % 360} 65% 30%)`);
  pen.fillStyle = sky;
  pen.fillRect(0, 0, 320, 180);
  pen.fillStyle = 'rgb(255 255 255 / 0.18)';
  for (let i = 0; i < 5; i += 1) {
    pen.beginPath();
    pen.arc(Math.random() * 320, Math.random() * 180, 20 + Math.random() * 50, 0, 7);
    pen.fill();
  }
  pen.fillStyle = '#fff';
  pen.font = '600 26px system-ui, sans-serif';
  pen.fillText(user, 20, 150);
  return new Promise((resolve) => canvas.toBlob(resolve, 'image/jpeg', 0.7));
}

const button = (key, run, look = '') => h('button', { class: look, t: key, 'data-act': key, on: { click: () => run() } });
const group = (key, ...children) => h('div', { class: 'group' }, h('h4', { t: key }), children);
const why = (key) => h('p', { class: 'fine', t: key });

const PANELS = {
  me: () => [
    group('me.session', h('div', { class: 'row-of' }, button('act.login', actions.login, 'primary'), button('act.logout', actions.logout)), why('me.session.why')),
    group('me.number', h('div', { class: 'row-of' }, button('act.number.code', actions.phoneByCode), button('act.number.cipher', actions.phoneByCiphertext)), button('act.number.app', actions.phoneToApp), why('me.number.why')),
    group('me.age', h('div', { class: 'row-of' }, button('act.expire', actions.expire), button('act.rotate', actions.rotate)), why('me.age.why')),
  ],

  app: () => {
    const method = h('select', { tLabel: 'app.method' }, ['GET', 'POST', 'PUT', 'DELETE', 'PATCH'].map((name) => h('option', { text: name })));
    const path = h('input', { value: '/api/whoami', spellcheck: 'false', tLabel: 'app.path', id: 'app-path' });
    const body = h('textarea', { rows: '3', spellcheck: 'false', tLabel: 'app.body', id: 'app-body', hidden: true });
    body.value = '{ "hello": "world" }';
    const forged = h('input', { type: 'checkbox', id: 'forged' });
    const wrong = h('p', { class: 'wrong', role: 'alert', hidden: true });
    method.addEventListener('change', () => { body.hidden = method.value === 'GET' || method.value === 'DELETE'; });
    const send = (event) => {
      event.preventDefault();
      let data;
      wrong.hidden = true;
      try {
        if (!body.hidden && body.value.trim()) data = JSON.parse(body.value);
      } catch (error) {
        wrong.textContent = t('app.json', { why: error.message });
        wrong.hidden = false;
        body.focus();
        return;
      }
      actions.call(method.value, path.value.startsWith('/') ? path.value : `/${path.value}`, data, forged.checked);
    };
    return group('app.request',
      h('form', { on: { submit: send } },
        h('div', { class: 'joined' }, method, path), body, wrong,
        h('label', { class: 'check' }, forged, ' ', h('span', { t: 'app.forge' })),
        h('button', { class: 'primary wide', t: 'act.send', 'data-act': 'act.send' })), why('app.why'));
  },

  picture: () => {
    const file = h('input', { type: 'file', accept: 'image/*', class: 'unseen', id: 'picture-file', tLabel: 'act.choose' });
    file.addEventListener('change', () => {
      if (file.files[0]) actions.upload(file.files[0], file.files[0].name);
      file.value = '';
    });
    return group('picture.title', h('div', { class: 'row-of' }, button('act.sample', actions.samplePicture, 'primary'), h('label', { class: 'button', for: 'picture-file', t: 'act.choose' }), file), why('picture.why'));
  },

  chat: () => {
    const text = parts.text = h('input', { id: 'message', tLabel: 'chat.text', maxlength: '400', on: { input: () => { text.dataset.touched = 'yes'; } } });
    text.value = t('chat.hello');
    parts.lines = h('ol', { class: 'lines', role: 'log', tLabel: 'ws.lines' });
    parts.line = h('input', { id: 'ws-line', tLabel: 'ws.text', tPlaceholder: 'ws.text', autocomplete: 'off' });
    parts.connect = h('button', { class: 'wide', 'data-act': 'act.connect', t: 'act.connect', on: { click: () => (socket ? socket.close({}) : actions.connect()) } });
    const send = (event) => {
      event.preventDefault();
      if (!socket || !parts.line.value) return;
      line('me', parts.line.value);
      socket.send({ data: parts.line.value });
      parts.line.value = '';
    };
    parts.talk = h('form', { class: 'joined', hidden: true, on: { submit: send } }, parts.line, h('button', { t: 'act.say', 'data-act': 'act.say' }));
    return [
      group('chat.title', h('form', { on: { submit: (event) => { event.preventDefault(); actions.message(text.value); } } },
        h('div', { class: 'joined' }, text, h('button', { class: 'primary', t: 'act.message', 'data-act': 'act.message' }))), button('act.event', actions.event, 'wide'), why('chat.why')),
      group('ws.title', parts.connect, parts.lines, parts.talk, why('ws.why')),
    ];
  },

  wechat: () => [
    group('wechat.app', h('div', { class: 'row-of' }, button('act.wxacode', actions.wxacode, 'primary'), button('act.subscribe', actions.subscribe)), why('wechat.app.why')),
    h('fieldset', { class: 'group faults' }, h('legend', { t: 'fault.title' }), ['', ...Object.keys(FAULTS)].map((name) =>
      h('label', { class: 'check' }, h('input', { type: 'radio', name: 'fault', id: `fault-${name || 'none'}`, checked: !name, on: { change: () => actions.fault(name) } }), ' ', h('span', { t: `fault.${name || 'none'}` })))),
  ],
};

function line(from, text) {
  parts.lines.append(h('li', { class: from, text: String(text).slice(0, 2000) }));
  parts.lines.scrollTop = parts.lines.scrollHeight;
}

function drawSocket() {
  parts.talk.hidden = !socket;
  parts.connect.dataset.t = socket ? 'act.disconnect' : 'act.connect';
  parts.connect.textContent = t(parts.connect.dataset.t);
  if (socket) parts.line.focus();
}
