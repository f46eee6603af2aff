// The sidecar itself: traffic, access token, what is held back, sessions, pushes, configuration.

import { byId, duration, fill, h, moment, span, toast } from './dom.js';
import { ask, log, state } from './server.js';
import { language, t } from './words.js';

const box = byId('overview');
let config = null;
let everything = false;
let charts = null;

export function startOverview() {
  state.addEventListener('change', draw);
  log.addEventListener('link', draw);
}

export function redrawOverview() {
  charts = null;
  draw();
}

function draw() {
  const now = state.now;
  if (!now) return;
  charts ??= build();
  if (now.rates) charts.traffic(now.rates);
  charts.facts(now);
}

/** The frame is built once; what changes every two seconds is drawn into it, so that focus and folds stay. */
function build() {
  const requests = chart('chart.requests');
  const latency = chart('chart.latency');
  const cards = h('div', { class: 'cards' });
  const refused = h('div');
  const again = h('button', { class: 'small', t: 'config.reload', on: { click: () => reload(effective) } });
  const effective = h('details', { class: 'effective' }, h('summary', { t: 'config.effective' }), h('div'));
  effective.addEventListener('toggle', () => effective.open && loadConfig(effective.lastElementChild));
  const line = h('p', { class: 'line' });
  fill(box,
    h('div', { class: 'head' }, h('div', { class: 'title' }, h('h2', { t: 'overview.title' }), line),
      h('div', { class: 'actions' }, again)),
    refused, h('div', { class: 'charts' }, requests.element, latency.element), cards, effective);
  return {
    traffic(rates) {
      const last = (all) => all?.at(-1) ?? 0;
      const sum = (all) => (all ?? []).reduce((a, b) => a + b, 0);
      requests.draw([['area', rates.requests], ['bad', rates.errors]], `${last(rates.requests)}`, t('chart.requests.now', { all: sum(rates.requests), bad: sum(rates.errors) }), (n) => String(Math.ceil(n)));
      const busy = (rates.mean_us ?? []).filter(Boolean);
      const slowest = Math.max(0, ...(rates.slowest_us ?? []));
      const mean = busy.length ? Math.round(sum(busy) / busy.length) : 0;
      latency.draw([['faint', rates.slowest_us], ['line', rates.mean_us]], mean ? duration(mean) : '–', t('chart.latency.now', { slowest: slowest ? duration(slowest) : '–' }), duration);
    },
    facts(now) {
      line.textContent = [now.appid, now.env, `wx-sidecar ${now.version}`, now.started && t('overview.up', { span: span((now.now - now.started) / 1000) })].filter(Boolean).join(' · ');
      // What `dev` runs with is in no file.
      again.hidden = Boolean(now.phone);
      const why = now.config?.refused;
      // Only if it is another: somebody may be copying from it.
      const which = why ? `${why.at}${why.why}` : '';
      if (refused.dataset.which !== which) {
        refused.dataset.which = which;
        fill(refused, why && h('section', { class: 'part problem' }, h('h3', { t: 'config.refused' }), h('p', { class: 'said', text: t('config.refused.why', { at: moment(why.at * 1000) }) }), h('pre', { class: 'code', tabindex: '0', text: why.why })));
      }
      fill(cards, cardsOf(now));
    },
  };
}

function cardsOf(now) {
  const token = now.access_token ?? {};
  const looks = { good: 'good', failing: 'bad', none: 'none', unused: 'none' };
  const shapes = { good: '●', bad: '■', none: '○' };
  const look = looks[token.state] ?? 'none';
  const total = (token.age_s ?? 0) + (token.expires_in_s ?? 0);
  const held = now.held_back ?? [];
  return [
    card('card.token', [
      h('p', null, h('span', { class: `status ${look}`, text: `${shapes[look]} ${t(`access.${token.state}`)}` })),
      token.state === 'good' && total > 0 && meter(token.age_s / total, t('access.meter')),
      token.expires_in_s != null && h('p', { class: 'fine', text: t('access.age', { age: span(token.age_s), left: span(token.expires_in_s) }) }),
      token.why && h('p', { class: 'wrong', text: token.why }),
    ]),
    card('card.sessions', [
      pairs([['sessions.logins', now.sessions?.logins ?? 0], ['sessions.store', now.sessions?.store]]),
      now.sessions?.failure && h('p', { class: 'wrong', text: now.sessions.failure }),
    ]),
    card('card.push', now.push
      ? [pairs([['push.waiting', now.push.waiting], ['push.dead', now.push.dead]]), now.push.failure && h('p', { class: 'wrong', text: now.push.failure })]
      : [h('p', { class: 'none', t: 'push.off' })]),
    card('card.held', [
      h('p', null, h('span', { class: `status ${held.length ? 'warn' : 'good'}`, text: held.length ? `▲ ${t('held.some', { n: held.length })}` : `● ${t('held.none')}` })),
      held.length > 0 && h('ul', { class: 'plain lines' }, held.map((line) => h('li', { text: line }))),
      now.quota?.some((it) => it.limit) && h('dl', { class: 'pairs quota' }, scarcest(now.quota).map((it) => [h('dt', { class: 'mono', text: it.api }), h('dd', { text: t('quota.used', { n: it.limit - it.remaining, all: compact(it.limit) }) })])),
    ]),
    card('card.config', [
      pairs([...(now.config?.source ? [['config.source', now.config.source]] : []), ['config.since', now.config?.in_use_since ? moment(now.config.in_use_since * 1000) : '–']]),
      now.config?.unread && h('p', { class: 'wrong', text: now.config.unread }),
    ]),
    now.phone && card('card.where', [pairs([['where.sidecar', now.phone.sidecar], ['where.app', now.phone.app], ['where.outbound', now.phone.outbound], ['where.sim', now.phone.sim]])]),
  ].filter(Boolean);
}

/** The quotas of which the least is left; one would not look at more. */
const scarcest = (all) => all.filter((it) => it.limit).toSorted((a, b) => a.remaining / a.limit - b.remaining / b.limit).slice(0, 5);

const compact = (number) => new Intl.NumberFormat(language() === 'zh' ? 'zh-CN' : 'en', { notation: 'compact' }).format(number);

const card = (key, children) => h('section', { class: `card ${key.split('.')[1]}` }, h('h3', { t: key }), children);

const pairs = (all) => h('dl', { class: 'pairs' }, all.map(([key, value]) => [h('dt', { t: key }), h('dd', { text: String(value ?? '–') })]));

function meter(part, label) {
  const bar = h('span');
  bar.style.width = `${Math.min(100, Math.max(0, part * 100))}%`;
  return h('div', { class: 'meter', role: 'img', 'aria-label': label }, bar);
}

/** A chart of sixty seconds. Lines are `[class, numbers]`, the first is also what the scale is made for. */
function chart(key) {
  const svg = h('svg', { viewBox: '0 0 300 56', preserveAspectRatio: 'none', role: 'img' });
  const value = h('b');
  const words = h('p', { class: 'fine' });
  const most = h('span', { class: 'most fine' });
  const paths = new Map();
  const element = h('figure', { class: 'chart' }, h('figcaption', null, h('span', { t: key }), value), h('div', { class: 'plot' }, svg, most), words);
  return {
    element,
    draw(lines, current, said, unit) {
      value.textContent = current;
      words.textContent = said;
      const top = Math.max(...lines.flatMap(([, numbers]) => numbers ?? []), 0);
      most.textContent = top ? unit(top) : '';
      svg.setAttribute('aria-label', `${t(key)}: ${current}. ${said}`);
      for (const [look, numbers] of lines) {
        if (!paths.has(look)) {
          paths.set(look, h('path', { class: look }));
          svg.append(paths.get(look));
        }
        paths.get(look).setAttribute('d', curve(numbers ?? [], top, look !== 'line'));
      }
    },
  };
}

function curve(numbers, top, closed) {
  if (!top || !numbers.length) return '';
  const step = 300 / Math.max(1, numbers.length - 1);
  const points = numbers.map((n, at) => `${(at * step).toFixed(1)} ${(55 - ((n || 0) / top) * 50).toFixed(1)}`);
  return closed ? `M0 56L${points.join('L')}L300 56Z` : `M${points.join('L')}`;
}

async function reload(effective) {
  try {
    toast((await (await ask('../reload', { method: 'POST' })).text()).trim() || t('config.reloaded'));
  } catch (failure) {
    toast(t('config.failed', { why: failure.message }));
  }
  await state.refresh();
  if (effective.open) loadConfig(effective.lastElementChild);
}

async function loadConfig(into) {
  try {
    config = (await (await ask('../config')).json()).config;
  } catch (failure) {
    fill(into, h('p', { class: 'wrong', text: failure.message }));
    return;
  }
  drawConfig(into);
}

function drawConfig(into) {
  const keys = leaves(config, '');
  const shown = everything ? keys : keys.filter(([, it]) => it.origin !== 'default' && it.origin !== 'unset');
  fill(into,
    h('label', { class: 'check' }, h('input', { type: 'checkbox', checked: everything, on: { change: (event) => { everything = event.target.checked; drawConfig(into); } } }), ' ', t('config.all', { n: keys.length })),
    h('table', { class: 'grid config' }, h('tbody', null, shown.map(([name, it]) => h('tr', { class: it.origin === 'default' || it.origin === 'unset' ? 'kept' : '' },
      h('th', { scope: 'row', class: 'mono', text: name }), h('td', { class: 'mono', text: it.value === null || it.value === undefined ? '–' : typeof it.value === 'object' ? JSON.stringify(it.value) : String(it.value) }), h('td', { class: 'fine', text: it.source ?? '' }))))));
}

/** The keys with their values: an object with `origin` is one, all others are sections. */
function leaves(tree, path) {
  if (tree === null || typeof tree !== 'object') return [[path, { value: tree }]];
  if (typeof tree.origin === 'string' && 'value' in tree) return [[path, tree]];
  return Object.entries(tree).flatMap(([name, child]) => leaves(child, Array.isArray(tree) ? `${path}[${name}]` : path ? `${path}.${name}` : name));
}
