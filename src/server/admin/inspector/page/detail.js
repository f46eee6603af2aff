// One exchange in full. The most telling comes first: what went wrong, what was decrypted, what WeChat said; then what
// the phone sent beside what the app got.

import { byId, clock, copy, duration, fill, h, statusChip, toast } from './dom.js';
import { bodyView, valueView } from './body.js';
import { curlOf } from './curl.js';
import { whoIs } from './list.js';
import { ask, log, state } from './server.js';
import { has, language, REASONS, t } from './words.js';

const box = byId('detail');
let id = null;
let shown = null;
/** What is drawn, as text. */
let drawn = '';
let timer = 0;
let close = () => {};
let open = () => {};

export function startDetail(onClose, onOpen) {
  close = onClose;
  open = onOpen;
  log.addEventListener('change', (event) => {
    if (id === null || !shown) return;
    const concerns = event.detail.some((it) => it.id === id || (it.trace && it.trace === shown.trace));
    // An exchange under way changes several times at once.
    if (concerns) { clearTimeout(timer); timer = setTimeout(load, 120); }
  });
}

/** Shows the exchange; null for none. */
export function showDetail(wanted) {
  const another = wanted !== id;
  id = wanted;
  box.hidden = id === null;
  if (id === null) { shown = null; return undefined; }
  if (another) { shown = null; byId('pane').scrollTop = 0; }
  return load();
}

/** Draws again what is shown, in another language. */
export function redrawDetail() {
  if (id !== null && shown) draw(shown);
}

export const openedId = () => id;

async function load() {
  const wanted = id;
  try {
    const text = await (await ask(`exchanges/${wanted}`)).text();
    if (wanted !== id) return;
    const detail = JSON.parse(text);
    // Drawing takes the button from under the pointer: only if there is something new.
    const what = text + JSON.stringify(relatives(detail));
    if (what === drawn && shown) return;
    drawn = what;
    draw(detail);
  } catch (failure) {
    if (wanted !== id) return;
    const gone = failure.status === 404;
    fill(box, head([h('h2', { text: `#${wanted}` })]), h('p', { class: 'note', t: gone ? 'detail.gone' : 'detail.failed' }));
  }
}

function draw(it) {
  shown = it;
  // What the reader has folded, and where he is, outlast a change of the exchange.
  const folds = new Map([...box.querySelectorAll('details[data-key]')].map((one) => [one.dataset.key, one.open]));
  const focused = box.contains(document.activeElement) ? document.activeElement.dataset.key : null;
  fill(box, [
    title(it),
    problem(it),
    openData(it),
    push(it),
    timings(it),
    wechat(it),
    // What the sidecar answered by itself says more than what it was asked.
    it.app ? [comparison(it), answer(it)] : [answer(it), isSent(it) && sent(it)],
    related(it),
    facts(it),
  ]);
  for (const one of box.querySelectorAll('details[data-key]')) if (folds.has(one.dataset.key)) one.open = folds.get(one.dataset.key);
  if (focused) box.querySelector(`[data-key="${focused}"]`)?.focus();
}

const section = (spot, key, ...children) => h('section', { class: `part ${spot}`, 'data-spot': spot }, h('h3', { t: key }), children);

function head(children, actions = []) {
  return h('div', { class: 'head' }, h('div', { class: 'title' }, children),
    h('div', { class: 'actions' }, actions, h('button', { class: 'small icon', tLabel: 'detail.close', text: '✕', 'data-key': 'close', on: { click: () => close() } })));
}

function title(it) {
  const actions = [];
  if (isSent(it)) actions.push(h('button', { class: 'small', t: 'copy.curl', 'data-key': 'curl', on: { click: () => copyCurl(it) } }));
  const body = it.push?.body ?? (it.answer?.body?.text ? it.answer.body : it.phone?.body);
  if (body?.text) actions.push(h('button', { class: 'small', t: it.push ? 'copy.message' : it.answer?.body?.text ? 'copy.answer' : 'copy.sent', 'data-key': 'body', on: { click: () => copy(body.text, t(body.kept < body.size ? 'copied.part' : 'copied.body')) } }));
  const line = [t(`kind.${it.kind}`), clock(it.at), it.state === 'open' ? t('state.open') : duration(it.took_us), it.user && whoIs(it.user)];
  return head([
    h('h2', null, statusChip(it), ' ', h('span', { class: 'method', text: it.method }), ' ', h('bdi', { class: 'target', text: it.target })),
    h('p', { class: 'line', text: line.filter(Boolean).join(' · ') }),
  ], actions);
}

function copyCurl(it) {
  const from = it.kind === 'call' ? state.now?.phone?.outbound : state.now?.phone?.sidecar;
  const { text, variables, file } = curlOf(it, from);
  const said = [t('copied.curl')];
  if (variables.length) said.push(t('copied.variables', { names: variables.map((name) => `$${name}`).join(', ') }));
  if (file) said.push(t('copied.file'));
  copy(text, said.join(' '));
}

/** The member of `{en, zh}` for the page's language. */
const inLanguage = (said) => said?.[language()] ?? said?.en;

/** The call that WeChat refused last, if it said why. */
const refusal = (it) => (it.wechat ?? []).findLast((call) => call.errcode && call.title);

function problem(it) {
  const text = it.answer?.body?.text;
  let told = {};
  if (it.problem) { try { told = JSON.parse(text) ?? {}; } catch { told = {}; } }
  const refused = refusal(it);
  const known = it.failure ?? refused;
  const errcode = it.errcode || told.errcode;
  if (!it.problem && !errcode && !known) return null;
  const titled = `problem.${it.problem}`;
  const heading = has(titled) ? t(titled) : told.title ?? (errcode ? t('problem.refused') : it.problem);
  const detail = inLanguage(known?.title) ?? told.detail;
  let hint = inLanguage(known?.hint) ?? told.hint;
  // What is no fault of WeChat's is told in one language only.
  const advice = `advice.${it.problem}`;
  if (language() === 'zh' && has(advice) && !/[\u4e00-\u9fff]/.test(hint ?? '')) hint = t(advice);
  return h('section', { class: 'part problem', 'data-spot': 'problem' },
    h('h3', { text: heading }),
    detail && h('p', { class: 'said', text: detail }),
    hint && h('p', { class: 'hint' }, h('strong', { t: 'problem.hint' }), ' ', hint),
    h('p', { class: 'fine' }, [
      errcode && h('span', { class: 'badge warn', text: `errcode ${errcode}` }),
      it.problem && h('span', { class: 'badge bad', text: it.problem }),
      told.retryable !== undefined && h('span', { class: 'badge', t: told.retryable ? 'problem.retry' : 'problem.noretry' }),
      (told.rid || known?.rid) && h('span', { class: 'mono', text: `rid ${told.rid || known.rid}` }),
    ]));
}

function openData(it) {
  if (!it.open_data?.length) return null;
  return section('open', 'open.title', h('p', { class: 'explain', t: 'open.why' }), it.open_data.map((one) => {
    const phone = one.phoneNumber ?? one.phone_info?.phoneNumber;
    return [phone && h('p', { class: 'big', text: phone }), valueView(one)];
  }));
}

function push(it) {
  if (!it.push) return null;
  const { push: message } = it;
  const replayed = async (event) => {
    event.target.disabled = true;
    try {
      await ask(`pushes/${it.id}/replay`, { method: 'POST' });
      toast(t('push.replayed'));
    } catch (failure) {
      toast(t('push.refused', { why: failure.message }));
    }
    event.target.disabled = false;
  };
  return section('push', 'push.title',
    h('p', { class: 'explain', t: 'push.why' }),
    bodyView(message.body, 'application/json'),
    h('div', { class: 'split' }, h('h4', { t: 'push.attempts' }),
      message.replayable && h('button', { class: 'small primary', t: 'push.replay', 'data-key': 'replay', on: { click: replayed } })),
    message.attempts?.length
      ? h('table', { class: 'grid attempts' }, h('tbody', null, message.attempts.map((one, at) => h('tr', null,
        h('td', { text: `${at + 1}.` }), h('td', { text: clock(one.at) }), h('td', { class: 'mono', text: one.path }),
        h('td', null, one.error ? h('span', { class: 'status bad', text: `■ ${one.error}` }) : statusChip({ status: one.status })), h('td', { class: 'number', text: duration(one.took_us) })))))
      : h('p', { class: 'none', t: 'push.none' }));
}

/** The time of the exchange as a bar: who had it, in the order in which they did. */
function timings(it) {
  const all = it.timings;
  if (!all?.total_us) return null;
  const total = all.total_us;
  // A call of the app's is nothing but WeChat's time and ours.
  const wechatUs = all.wechat_us ?? (it.kind === 'call' ? (it.wechat ?? []).reduce((sum, one) => sum + one.took_us, 0) : 0);
  if (all.own_us == null && !wechatUs && all.app_us == null) return null;
  const appUs = all.asked_us != null && all.answered_us != null ? all.answered_us - all.asked_us : all.app_us ?? 0;
  const before = all.asked_us != null ? Math.max(0, all.asked_us - wechatUs) : Math.max(0, total - wechatUs - appUs);
  const after = Math.max(0, total - before - wechatUs - appUs);
  const legs = [['own', before], ['wechat', wechatUs], ['app', appUs], ['back', after]].filter(([, us]) => us > 0);
  const bar = h('div', { class: 'legs', role: 'img', 'aria-label': legs.map(([name, us]) => `${t(`leg.${name}`)} ${duration(us)}`).join(', ') },
    legs.map(([name, us]) => {
      const leg = h('span', { class: `leg ${name}`, title: `${t(`leg.${name}`)} ${duration(us)}` });
      leg.style.flexGrow = String(Math.max(us / total, 0.004));
      return leg;
    }));
  const own = all.own_us ?? before + after;
  return section('time', 'time.title', bar, h('p', { class: 'legend' },
    [['own', own], ['wechat', wechatUs], ['app', all.app_us ?? (appUs || null)]].filter(([, us]) => us != null && us > 0).map(([name, us]) =>
      h('span', null, h('i', { class: `swatch ${name}` }), `${t(`leg.${name}`)} `, h('b', { text: duration(us) }))),
    h('span', null, `${t('leg.total')} `, h('b', { text: duration(total) }))));
}

function wechat(it) {
  if (!it.wechat?.length) return null;
  // That one has been told at the top.
  const refused = refusal(it);
  return section('wechat', it.kind === 'call' ? 'wechat.call' : 'wechat.title', h('ul', { class: 'plain' }, it.wechat.map((one) => h('li', { class: one.errcode ? 'refused' : '' },
    h('div', { class: 'split' }, h('span', { class: 'mono' }, h('span', { class: 'method', text: one.method }), ' ', one.path),
      h('span', null, statusChip(one), ' ', h('span', { class: `badge ${one.errcode ? 'warn' : 'good'}`, text: one.errcode ? `errcode ${one.errcode}` : t('wechat.good') }), ' ', h('span', { class: 'took', text: duration(one.took_us) }))),
    one !== refused && one.title && h('p', { class: 'said', text: inLanguage(one.title) }),
    one !== refused && one.hint && h('p', { class: 'hint' }, h('strong', { t: 'problem.hint' }), ' ', inLanguage(one.hint)),
    Boolean(one.errcode) && one.errmsg && h('p', { class: 'fine mono', text: [one.errmsg, one.rid && !one.errmsg.includes(one.rid) ? `rid ${one.rid}` : ''].filter(Boolean).join(' · ') })))));
}

/** Whether a phone, or the app, sent anything: a push is made of a request that stands beside it. */
const isSent = (it) => it.kind !== 'push' && Boolean(it.phone);

/** What was sent, when nobody else got it. */
function sent(it) {
  const call = it.kind === 'call';
  return section('compare', call ? 'compare.app-sent' : 'compare.sent',
    !call && h('p', { class: 'explain', t: 'compare.unseen' }),
    bodyView(it.phone.body, typeOf(it.phone.fields)),
    fieldsFold(it.phone.fields, 'sent-fields', null, Boolean(it.problem) && !it.wechat?.length));
}

/** What was sent beside what the app got. Lines of one name stand in one row; those that differ come first. */
function comparison(it) {
  const call = it.kind === 'call';
  const isPush = it.kind === 'push';
  const sent = it.phone?.fields ?? [];
  const same = it.phone?.body && it.app.body && it.phone.body.size === it.app.body.size && it.phone.body.text === it.app.body.text && it.phone.body.base64 === it.app.body.base64;
  const diff = compare(isSent(it) ? it.phone.fields : null, it.app);
  const moved = it.app.target !== it.target && !isPush;
  const changes = { added: diff.filter((row) => row.mark === '+').length, removed: diff.filter((row) => row.mark === '−').length };
  return section('compare', call ? 'compare.call' : isPush ? 'compare.push' : 'compare.title',
    isSent(it) && h('p', { class: 'explain' }, t('compare.count', changes), moved && ` ${t('compare.moved', { target: it.app.target })}`),
    h('table', { class: 'grid diff' },
      h('thead', null, h('tr', null, h('th', { scope: 'col', t: 'compare.field' }),
        isSent(it) && h('th', { scope: 'col', t: call ? 'compare.app-sent' : 'compare.sent' }),
        h('th', { scope: 'col' }, t(call ? 'compare.wechat-got' : 'compare.got'), ' ', h('span', { class: 'fine mono', text: it.app.url ?? '' })))),
      h('tbody', null, diff.map((row) => diffRow(row, isSent(it))))),
    same
      ? [h('h4', { t: 'compare.same-body' }), bodyView(it.phone.body, typeOf(sent))]
      : it.phone?.body || (it.app.body && !isPush)
        ? h('div', { class: 'twins' },
          h('div', null, h('h4', { t: 'compare.sent-body' }), bodyView(it.phone?.body, typeOf(sent))),
          h('div', null, h('h4', { t: 'compare.got-body' }), bodyView(it.app.body, typeOf(it.app.fields))))
        : null);
}

function compare(sent, app) {
  const added = new Set(app.added ?? []);
  const rows = [];
  const left = (sent ?? []).map(([name, value]) => ({ name, key: name.toLowerCase(), value }));
  for (const [name, value, why] of app.dropped ?? []) {
    rows.push({ mark: '−', name, sent: value, why: why || true });
    const at = left.findIndex((it) => it.key === name.toLowerCase() && it.value === value);
    // A masked value may not be the same text.
    const any = at < 0 ? left.findIndex((it) => it.key === name.toLowerCase()) : at;
    if (any >= 0) left.splice(any, 1);
  }
  for (const [name, value] of app.fields ?? []) {
    const key = name.toLowerCase();
    const at = added.has(key) ? -1 : left.findIndex((it) => it.key === key);
    // A push has no phone to compare with: only what is ours is marked.
    if (at < 0) { rows.push({ mark: sent || added.has(key) ? '+' : '', name, got: value }); continue; }
    const [was] = left.splice(at, 1);
    rows.push({ mark: was.value === value ? '' : '~', name, sent: was.value, got: value });
  }
  for (const was of left) {
    // It was replaced by a line of ours of the same name, or went without a reason told.
    const ours = rows.find((row) => row.mark === '+' && row.name.toLowerCase() === was.key);
    if (ours) { ours.mark = '~'; ours.sent = was.value; } else rows.push({ mark: '−', name: was.name, sent: was.value, why: true });
  }
  // A line that we write anew is one change, and not a removal and an addition; a forged identity is both.
  for (const gone of rows.filter((row) => row.mark === '−' && !/^x-wx-/i.test(row.name))) {
    const ours = rows.find((row) => row.mark === '+' && row.name.toLowerCase() === gone.name.toLowerCase());
    if (!ours) continue;
    Object.assign(ours, { mark: '~', sent: gone.sent, why: gone.why });
    rows.splice(rows.indexOf(gone), 1);
  }
  const order = { '−': 0, '+': 1, '~': 2, '': 3 };
  const first = (row) => (/^x-wx-/i.test(row.name) ? 0 : 1);
  return rows.map((row, at) => ({ ...row, at })).sort((a, b) => Number(a.mark === '') - Number(b.mark === '') || first(a) - first(b) || order[a.mark] - order[b.mark] || a.at - b.at);
}

const LOOKS = { '+': 'added', '−': 'removed', '~': 'changed', '': 'kept' };

const markOf = (mark) => h('span', { class: 'mark', role: mark ? 'img' : null, 'aria-label': mark ? t(`compare.${LOOKS[mark]}`) : null, text: mark });

function diffRow(row, both) {
  const look = LOOKS[row.mark];
  const reason = row.why && h('div', { class: 'why' }, row.why === true ? t('compare.withheld') : reasonOf(row.why));
  return h('tr', { class: look },
    h('th', { scope: 'row' }, markOf(row.mark), h('span', { class: 'mono', text: row.name })),
    both && h('td', { class: 'mono' }, row.sent === undefined ? h('span', { class: 'none', text: '' }) : row.mark === '−' ? h('del', { text: row.sent }) : row.sent),
    h('td', null, row.got !== undefined && h('span', { class: 'mono' }, row.mark === '+' ? h('ins', { text: row.got }) : row.got), reason));
}

/** The server tells reasons in English; those that are known are told in the page's language. */
function reasonOf(why) {
  const known = language() === 'zh' && REASONS.find(([beginning]) => why.startsWith(beginning));
  return known ? known[1] : why;
}

const typeOf = (fields) => (fields ?? []).find(([name]) => /^content-type$/i.test(name))?.[1] ?? '';

/** Headers that are folded at first; those that are `ours` are marked as added. */
function fieldsFold(fields, key, ours, open = false) {
  return h('details', { 'data-key': key, open }, h('summary', null, t('fields.n', { n: fields.length })),
    h('table', { class: 'grid' }, h('tbody', null, fields.map(([name, value]) => h('tr', { class: ours?.(name) ? 'added' : '' },
      h('th', { scope: 'row' }, markOf(ours?.(name) ? '+' : ''), h('span', { class: 'mono', text: name })), h('td', { class: 'mono', text: value }))))));
}

function answer(it) {
  if (!it.answer) {
    return it.state === 'open' ? section('answer', 'answer.title', h('p', { class: 'note', t: 'answer.open' })) : null;
  }
  const { fields, body } = it.answer;
  const said = it.app?.answer?.fields;
  const names = said && new Set(said.map(([name]) => name.toLowerCase()));
  return section('answer', 'answer.title',
    bodyView(body, typeOf(fields)),
    fieldsFold(fields, 'answer-fields', names && ((name) => !names.has(name.toLowerCase()))));
}

/** What belongs to it: a push and the request that brought it, a request and the calls it made. */
const relatives = (it) => (it.trace ? [...log.entries.values()].filter((other) => other.trace === it.trace && other.id !== it.id) : []);

function related(it) {
  const all = relatives(it);
  if (!all.length) return null;
  return section('related', 'related.title', h('ul', { class: 'plain' }, all.map((other) => h('li', null,
    h('button', { class: 'link-like', 'data-key': `to-${other.id}`, on: { click: () => open(other.id) } },
      statusChip(other), ' ', h('span', { class: 'badge', t: `kind.${other.kind}` }), ' ', h('span', { class: 'method', text: other.method }), ' ', other.target)))));
}

function facts(it) {
  const all = [['fact.request_id', it.request_id], ['fact.trace', it.trace], ['fact.route', it.route], ['fact.user', it.user], ['fact.client', it.client], ['fact.protocol', it.protocol], ['fact.message', it.push?.message_id]];
  return h('dl', { class: 'facts' }, all.filter(([, value]) => value).map(([key, value]) => h('div', null, h('dt', { t: key }), h('dd', { class: 'mono', text: value }))));
}
