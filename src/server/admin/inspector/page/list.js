// The list of exchanges: newest on top, filtered, and operated by keyboard. A row is made once and changed in place;
// what has happened since the last frame is drawn together, so a thousand requests a second cost what sixty do.

import { announce, byId, clock, duration, fill, h, statusChip } from './dom.js';
import { log, state } from './server.js';
import { t } from './words.js';

/** Names for openids, as far as the virtual phone knows them. */
export const names = new Map();

const rows = new Map();
const waiting = new Map();
const filter = { text: '', kind: '', errors: false };
let paused = false;
let active = null;
let opened = null;
let frame = 0;
let open = () => {};
/** Ids above this, of what an action of the phone causes now; null if none is under way. */
let causing = null;

const box = byId('rows');

export function startList(onOpen) {
  open = onOpen;
  log.addEventListener('change', (event) => {
    for (const entry of event.detail) waiting.set(entry.id, entry);
    if (paused) tellPaused();
    else schedule();
  });
  log.addEventListener('gone', (event) => event.detail.forEach(forget));
  log.addEventListener('reset', () => {
    for (const id of [...rows.keys()]) forget(id);
    waiting.clear();
    schedule();
  });
  byId('search').addEventListener('input', (event) => {
    filter.text = event.target.value.trim().toLowerCase();
    refilter();
  });
  byId('kinds').addEventListener('click', (event) => {
    const kind = event.target.dataset.kind;
    if (kind === undefined) return;
    filter.kind = kind;
    for (const button of byId('kinds').children) button.setAttribute('aria-pressed', button.dataset.kind === kind);
    refilter();
  });
  byId('errors').addEventListener('click', () => {
    filter.errors = !filter.errors;
    byId('errors').setAttribute('aria-pressed', filter.errors);
    refilter();
  });
  byId('pause').addEventListener('click', pause);
  byId('clear').addEventListener('click', () => log.clear());
  box.addEventListener('click', (event) => {
    const row = event.target.closest('[role=option]');
    if (row) open(Number(row.dataset.id));
  });
  box.addEventListener('keydown', (event) => {
    const move = { ArrowDown: 1, ArrowUp: -1, PageDown: 10, PageUp: -10, Home: -Infinity, End: Infinity }[event.key];
    if (move !== undefined && !event.altKey && !event.ctrlKey && !event.metaKey) {
      event.preventDefault();
      step(move);
    } else if (event.key === 'Enter' || event.key === ' ') {
      event.preventDefault();
      openActive();
    }
  });
  // Somebody who comes by Tab wants to see where he is.
  box.addEventListener('focus', () => { if (!rows.get(active)) step(0); });
}

export function pause() {
  paused = !paused;
  byId('pause').setAttribute('aria-pressed', paused);
  tellPaused();
  if (!paused) schedule();
}

function tellPaused() {
  const fresh = [...waiting.keys()].filter((id) => !rows.has(id)).length;
  byId('pause').textContent = !paused ? t('pause') : fresh ? t('resume.n', { n: fresh }) : t('resume');
}

/** Moves the cursor; with a detail open, that follows. */
export function step(by) {
  const shown = [...box.children].filter((row) => !row.hidden);
  if (!shown.length) return;
  const at = shown.findIndex((row) => Number(row.dataset.id) === active);
  const to = at < 0 ? 0 : Math.min(shown.length - 1, Math.max(0, at + by));
  activate(Number(shown[to].dataset.id));
  if (opened !== null && by) open(active);
}

export function openActive() {
  if (rows.has(active)) open(active);
}

/** Marks the row whose detail is shown; null for none. */
export function mark(id) {
  rows.get(opened)?.element.setAttribute('aria-selected', 'false');
  opened = id;
  if (id !== null) activate(id);
  rows.get(id)?.element.setAttribute('aria-selected', 'true');
}

function activate(id) {
  rows.get(active)?.element.classList.remove('active');
  active = id;
  const row = rows.get(id)?.element;
  if (!row) return;
  row.classList.add('active');
  box.setAttribute('aria-activedescendant', row.id);
  row.scrollIntoView({ block: 'nearest' });
}

/** While an action of the phone runs, what appears is lit. Returns a function that ends it. */
export function light() {
  const mine = (causing = log.newest);
  return () => setTimeout(() => { if (causing === mine) causing = null; }, 1200);
}

/** Draws all rows anew: in another language, or with names that were not known. */
export function redraw() {
  for (const [id, row] of rows) {
    if (!waiting.has(id)) waiting.set(id, row.entry);
  }
  tellPaused();
  fillEmpty();
  if (!paused) schedule();
}

function schedule() {
  frame ||= requestAnimationFrame(() => {
    frame = 0;
    draw();
  });
}

function draw() {
  const fresh = [];
  for (const [id, entry] of waiting) {
    // It was dropped while the list was paused.
    if (!log.entries.has(id)) continue;
    const row = rows.get(id);
    if (row) update(row, entry);
    else fresh.push(entry);
  }
  waiting.clear();
  fresh.sort((a, b) => a.id - b.id);
  for (const entry of fresh) insert(entry);
  count();
}

function insert(entry) {
  const element = h('div', { role: 'option', id: `row-${entry.id}`, 'data-id': entry.id, 'aria-selected': String(entry.id === opened) });
  const row = { element, entry };
  rows.set(entry.id, row);
  update(row, entry);
  if (causing !== null && entry.id > causing) {
    element.classList.add('lit');
    setTimeout(() => element.classList.remove('lit'), 2600);
  }
  let before = box.firstElementChild;
  while (before && Number(before.dataset.id) > entry.id) before = before.nextElementSibling;
  box.insertBefore(element, before);
}

const GLYPHS = { request: '→', call: '↗', push: '↙' };

function update(row, entry) {
  row.entry = entry;
  const { element } = row;
  const lit = element.classList.contains('lit');
  element.className = `row ${entry.kind}${lit ? ' lit' : ''}${entry.id === active ? ' active' : ''}`;
  const time = clock(entry.at);
  fill(
    element,
    h('span', { class: 'glyph', role: 'img', tTitle: `kind.${entry.kind}`, tLabel: `kind.${entry.kind}`, text: GLYPHS[entry.kind] ?? '·' }),
    h('span', { class: 'method', text: entry.method }),
    h('span', { class: 'target', title: entry.target }, h('bdi', { text: entry.target })),
    statusChip(entry),
    h('span', { class: 'time' }, time.slice(0, 8), h('span', { class: 'fine', text: time.slice(8) })),
    h('span', { class: 'more' }, h('span', { class: 'who', title: entry.user ?? '', text: whoIs(entry.user) }), h('span', { class: 'badges' }, badges(entry))),
    h('span', { class: 'took', text: entry.state === 'open' ? '…' : duration(entry.took_us) }),
  );
  element.hidden = !passes(entry);
}

/** A user's name if the phone has it, else the end of his openid: the beginning is the same for all of an app. */
export function whoIs(user) {
  if (!user) return '';
  return names.get(user) ?? (user.length > 9 ? `…${user.slice(-8)}` : user);
}

function badges(entry) {
  const all = [];
  if (entry.problem) all.push(h('span', { class: 'badge bad', title: entry.problem, text: entry.problem }));
  if (entry.errcode) all.push(h('span', { class: 'badge warn', tTitle: 'badge.errcode', text: `errcode ${entry.errcode}` }));
  if (entry.calls) all.push(h('span', { class: 'badge call', text: t('badge.calls', { n: entry.calls }) }));
  if (entry.outcome) all.push(h('span', { class: `badge ${{ delivered: 'good', dead: 'bad' }[entry.outcome] ?? ''}`, text: t(`outcome.${entry.outcome}`) }));
  if (entry.attempts > 1) all.push(h('span', { class: 'badge', text: t('badge.attempts', { n: entry.attempts }) }));
  return all;
}

function passes(entry) {
  if (filter.kind && entry.kind !== filter.kind) return false;
  if (filter.errors && !isFailure(entry)) return false;
  if (!filter.text) return true;
  const line = (all) => all.filter((it) => it !== null && it !== undefined).join(' ').toLowerCase();
  const [path, ...query] = entry.target.split('?');
  const said = line([entry.method, path, entry.route, entry.status, entry.user, names.get(entry.user), entry.problem, entry.errcode, entry.outcome]);
  const long = line([...query, entry.trace, entry.request_id]);
  // Any three digits are in some id or signature.
  return filter.text.split(/\s+/).every((word) => said.includes(word) || (!/^\d{1,5}$/.test(word) && long.includes(word)));
}

const isFailure = (entry) => entry.status >= 400 || Boolean(entry.problem) || Boolean(entry.errcode) || entry.outcome === 'dead';

function refilter() {
  for (const row of rows.values()) row.element.hidden = !passes(row.entry);
  const shown = count();
  announce(t('count.some', { n: shown, all: rows.size }));
}

function count() {
  let shown = 0;
  for (const row of rows.values()) if (!row.element.hidden) shown += 1;
  byId('count').textContent = shown === rows.size ? t('count.all', { n: shown }) : t('count.some', { n: shown, all: rows.size });
  const empty = byId('empty');
  const kind = shown ? '' : rows.size ? 'filtered' : 'new';
  if (empty.dataset.kind !== kind) {
    empty.dataset.kind = kind;
    fillEmpty();
  }
  empty.hidden = shown > 0;
  return shown;
}

/** What to do when there is nothing to see. */
function fillEmpty() {
  const empty = byId('empty');
  if (empty.dataset.kind === 'filtered') {
    fill(empty, h('p', { t: 'empty.filtered' }), h('button', { t: 'empty.unfilter', on: { click: unfilter } }));
    return;
  }
  const phone = state.now?.phone;
  fill(
    empty,
    h('h2', { t: 'empty.title' }),
    h('p', { t: phone ? 'empty.phone' : 'empty.live' }),
    phone && h('button', { class: 'primary', t: 'tour.start', on: { click: () => byId('tour-start').click() } }),
    phone && h('p', { t: 'empty.curl' }),
    phone && h('pre', { class: 'code', tabindex: '0', text:
      `CODE=$(curl -s '${phone.sim}/_sim/code?user=alice&format=text')\ncurl -s ${phone.sidecar}${phone.prefix}/login \\\n  -d "{\\"code\\":\\"$CODE\\"}"` }),
  );
}

/** The first state tells whether there is a phone. */
state.addEventListener('change', fillEmpty, { once: true });

function unfilter() {
  filter.text = filter.kind = '';
  filter.errors = false;
  byId('search').value = '';
  byId('errors').setAttribute('aria-pressed', 'false');
  for (const button of byId('kinds').children) button.setAttribute('aria-pressed', button.dataset.kind === '');
  refilter();
  byId('search').focus();
}

function forget(id) {
  rows.get(id)?.element.remove();
  rows.delete(id);
  waiting.delete(id);
  if (active === id) active = null;
}
