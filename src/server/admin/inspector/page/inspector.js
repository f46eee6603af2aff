// The page: puts the views together, and has the keyboard, the language and the theme.

import { announce, byId, fill, h } from './dom.js';
import { openedId, redrawDetail, showDetail, startDetail } from './detail.js';
import { mark, openActive, pause, redraw, startList, step } from './list.js';
import { redrawOverview, startOverview } from './overview.js';
import { redrawPhone, startPhone } from './phone.js';
import { log, state } from './server.js';
import { leave, redrawTour, startTour } from './tour.js';
import { language, setLanguage, t, translate } from './words.js';

const KEYS = [['j', '↓'], ['k', '↑'], ['Enter'], ['Esc'], ['/'], ['p'], ['t'], ['?']];

function open(id) {
  mark(id);
  const entry = log.entries.get(id);
  if (entry) announce(`${t('pane.name')}: ${entry.method} ${entry.target} ${entry.status ?? ''}`);
  byId('overview').hidden = true;
  document.body.classList.add('pane-open');
  byId('overview-show').setAttribute('aria-pressed', 'false');
  return showDetail(id);
}

/** Back to the state of the sidecar, which is what the pane shows when nothing is opened. */
function close() {
  const focusLost = byId('pane').contains(document.activeElement);
  mark(null);
  showDetail(null);
  byId('overview').hidden = false;
  document.body.classList.remove('pane-open');
  byId('overview-show').setAttribute('aria-pressed', 'true');
  if (focusLost) byId('rows').focus();
}

function showOverview() {
  close();
  // In a narrow window the pane lies over the list.
  document.body.classList.add('pane-open');
  byId('pane').scrollTop = 0;
  byId('pane').focus();
}

function startKeys() {
  fill(byId('keys-table'), KEYS.map((keys) => h('div', null, h('dt', null, keys.map((key) => h('kbd', { text: key }))), h('dd', { t: `keys.${keys[0]}` }))));
  byId('keys-show').addEventListener('click', () => byId('keys').showModal());
  document.addEventListener('keydown', (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || document.querySelector('dialog[open]')) return;
    const typing = event.target.closest('input:not([type=radio], [type=checkbox]), textarea, select');
    if (event.key === 'Escape') {
      if (typing) typing.blur();
      else if (openedId() !== null || document.body.classList.contains('pane-open')) close();
      else leave();
      return;
    }
    if (typing) return;
    // Arrows scroll whatever has the focus; only where nothing has do they move through the list.
    const nowhere = event.target === document.body;
    const run = {
      j: () => step(1), k: () => step(-1), '/': () => byId('search').focus(), '?': () => byId('keys').showModal(), p: pause,
      t: () => byId('tour-start').hidden || byId('tour-start').click(),
      ArrowDown: nowhere && (() => step(1)), ArrowUp: nowhere && (() => step(-1)), Enter: nowhere && openActive,
    }[event.key];
    if (!run) return;
    event.preventDefault();
    run();
  });
}

function startTheme() {
  const system = matchMedia('(prefers-color-scheme: dark)');
  const apply = () => {
    const chosen = localStorage.getItem('wx-inspector-theme');
    document.documentElement.dataset.theme = chosen ?? (system.matches ? 'dark' : 'light');
  };
  system.addEventListener('change', apply);
  apply();
  byId('theme').addEventListener('click', () => {
    localStorage.setItem('wx-inspector-theme', document.documentElement.dataset.theme === 'dark' ? 'light' : 'dark');
    apply();
  });
}

function startLanguage() {
  const apply = () => {
    document.documentElement.lang = language() === 'zh' ? 'zh-CN' : 'en';
    document.title = t('title');
    translate(document);
  };
  apply();
  byId('language').addEventListener('click', () => {
    setLanguage(language() === 'zh' ? 'en' : 'zh');
    apply();
    for (const again of [drawTop, redraw, redrawDetail, redrawOverview, redrawPhone, redrawTour]) again();
  });
}

function drawTop() {
  const link = byId('link');
  const reached = log.reached;
  link.className = `link ${reached === null ? '' : reached ? 'good' : 'bad'}`;
  const lost = log.refused ? 'link.refused' : 'link.lost';
  const text = t(reached === null ? 'link.connecting' : reached ? 'link.live' : lost, { why: log.refused });
  // It is a live region: the same text must not be said again.
  if (link.textContent !== text) link.textContent = text;
  byId('retry').hidden = reached !== false;
  document.body.classList.toggle('lost', reached === false);
  const now = state.now;
  const alarms = now ? [now.access_token?.state === 'failing', now.held_back?.length, now.config?.refused, now.sessions?.failure, now.push?.failure, now.push?.dead].filter(Boolean).length : 0;
  byId('overview-show').textContent = t(alarms ? 'overview.alarm' : 'overview.show', { n: alarms });
  byId('overview-show').classList.toggle('alarm', alarms > 0);
  if (now) fill(byId('which'), h('span', { class: 'mono', text: now.appid }), now.env && h('span', { class: 'badge', text: now.env }));
}

startTheme();
startLanguage();
startKeys();
startList(open);
startDetail(close, open);
startOverview();
startPhone(open);
startTour(open);
byId('overview-show').addEventListener('click', showOverview);
byId('overview-show').setAttribute('aria-pressed', 'true');
byId('retry').addEventListener('click', () => log.wake());
window.addEventListener('online', () => log.wake());
log.addEventListener('link', drawTop);
log.addEventListener('reset', () => {
  if (openedId() !== null) close();
  announce(t('said.reset'));
  state.refresh();
});
state.addEventListener('change', drawTop);
document.addEventListener('visibilitychange', () => { if (!document.hidden) state.refresh(); });
drawTop();
log.follow();
state.follow();
