// A walk through what the sidecar does, for somebody who has never seen a Mini Program's server. Each step explains, does
// one thing on the phone, opens what came of it, and points at what to look at.

import { byId, fill, h } from './dom.js';
import { state } from './server.js';
import { actions, hasPhone } from './phone.js';
import { t } from './words.js';

/** `act` gives the exchange it caused; `spot` is the part of the detail to look at. */
const STEPS = [
  { key: 'login', tab: 'me', spot: 'wechat', act: () => actions.login() },
  { key: 'enrich', tab: 'app', spot: 'compare', act: () => actions.call('GET', '/api/whoami', undefined, true) },
  { key: 'phone', tab: 'me', spot: 'open', act: () => actions.phoneByCiphertext() },
  { key: 'picture', tab: 'picture', spot: 'answer', act: () => actions.samplePicture() },
  { key: 'push', tab: 'chat', spot: 'push', act: () => actions.message(t('chat.hello')) },
  { key: 'call', tab: 'wechat', spot: 'answer', act: () => actions.wxacode() },
  { key: 'fault', tab: 'wechat', spot: 'problem', act: failedLogin },
];

const box = byId('tour');
let at = -1;
let before = null;
let open = () => {};

export function startTour(onOpen) {
  open = onOpen;
  byId('tour-start').addEventListener('click', begin);
  box.addEventListener('keydown', (event) => {
    if (event.key !== 'Escape') return;
    event.stopPropagation();
    leave();
  });
  const wanted = () => {
    if (location.hash === '#tour' && hasPhone() && at < 0) begin();
  };
  window.addEventListener('hashchange', wanted);
  // The phone appears with the first state, and the phone's listener runs before this one.
  state.addEventListener('change', wanted);
}

/** WeChat refuses a login, and is well again afterwards. */
async function failedLogin() {
  await actions.fault('code');
  actions.use('bob');
  const entry = await actions.login();
  await actions.fault('');
  actions.use('alice');
  return entry;
}

function begin() {
  before = document.activeElement;
  actions.use('alice');
  box.hidden = false;
  document.body.classList.add('touring');
  show(0);
}

export function leave() {
  if (at < 0) return false;
  at = -1;
  box.hidden = true;
  document.body.classList.remove('touring');
  point(null);
  if (location.hash === '#tour') history.replaceState(null, '', location.pathname + location.search);
  before?.focus?.();
  return true;
}

/** Draws the step again, in another language. */
export function redrawTour() {
  if (at >= 0) show(at);
}

function show(step) {
  at = step;
  point(null);
  const last = step === STEPS.length;
  const { key, tab } = STEPS[step] ?? { key: 'end' };
  if (tab) actions.tab(tab);
  const look = h('p', { class: 'look', 'aria-live': 'polite' });
  const back = step > 0 && h('button', { t: 'tour.back', on: { click: () => show(step - 1) } });
  const go = last
    ? h('button', { class: 'primary', t: 'tour.finish', on: { click: leave } })
    : h('button', { class: 'primary', t: `tour.${key}.do`, id: 'tour-do', on: { click: () => run(step, look) } });
  fill(box,
    h('div', { class: 'split' }, h('span', { class: 'fine', text: last ? t('tour.done') : t('tour.step', { n: step + 1, all: STEPS.length }) }),
      h('button', { class: 'small icon', tLabel: 'tour.leave', text: '✕', on: { click: leave } })),
    h('div', { class: 'progress', 'aria-hidden': 'true' }, STEPS.map((_, n) => h('i', { class: n < step ? 'past' : n === step ? 'now' : '' }))),
    h('h2', { id: 'tour-title', tabindex: '-1', t: `tour.${key}.title` }),
    h('p', { t: `tour.${key}.text` }),
    look,
    h('div', { class: 'row-of' }, back, go));
  byId('tour-title').focus();
}

async function run(step, look) {
  const go = byId('tour-do');
  go.disabled = true;
  const entry = await STEPS[step].act();
  if (at !== step) return;
  if (!entry) {
    go.disabled = false;
    look.textContent = t('tour.nothing');
    go.focus();
    return;
  }
  await open(entry.id);
  // The card was left, or the exchange has been dropped, meanwhile.
  if (at !== step) return;
  look.textContent = t(`tour.${STEPS[step].key}.look`);
  point(STEPS[step].spot);
  const next = h('button', { class: 'primary', id: 'tour-next', t: step === STEPS.length - 1 ? 'tour.last' : 'tour.next', on: { click: () => show(step + 1) } });
  go.replaceWith(next);
  next.focus();
  pointing = { id: entry.id, spot: STEPS[step].spot };
}

let pointing = null;

/** Frames a part of the detail. */
function point(spot) {
  if (!spot) pointing = null;
  for (const old of document.querySelectorAll('.spot')) old.classList.remove('spot');
  const part = spot && document.querySelector(`#detail [data-spot="${spot}"]`);
  if (!part) return;
  part.classList.add('spot');
  part.scrollIntoView({ block: 'start', behavior: matchMedia('(prefers-reduced-motion: reduce)').matches ? 'auto' : 'smooth' });
}

// The detail is drawn anew when its exchange changes: the frame has to come again.
new MutationObserver(() => {
  if (pointing && !document.querySelector('.spot')) document.querySelector(`#detail [data-spot="${pointing.spot}"]`)?.classList.add('spot');
}).observe(byId('detail'), { childList: true });
