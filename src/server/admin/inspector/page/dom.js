// Building blocks of the page: elements, and what several views say alike (times, sizes, statuses).
//
// Whatever comes from a request becomes text, never markup: nothing here or elsewhere sets innerHTML.

import { language, t, translateOne } from './words.js';

/**
 * An element. In `props`: `class`, `on` ({event: function}), `t`, `tLabel`, `tTitle` and `tPlaceholder` (keys of words.js,
 * which follow the language), `text`; all others are attributes. What is null or false is left out.
 */
export function h(tag, props, ...children) {
  const svg = tag === 'svg' || tag === 'path' || tag === 'circle' || tag === 'rect' || tag === 'g';
  const element = svg ? document.createElementNS('http://www.w3.org/2000/svg', tag) : document.createElement(tag);
  for (const [name, value] of Object.entries(props ?? {})) {
    if (value === null || value === undefined || value === false) continue;
    if (name === 'on') for (const [event, run] of Object.entries(value)) element.addEventListener(event, run);
    else if (name === 'text') element.textContent = value;
    else if (name === 't') element.dataset.t = value;
    else if (/^t[A-Z]/.test(name)) element.setAttribute('data-t-' + name.slice(1).toLowerCase(), value);
    else element.setAttribute(name, value === true ? '' : value);
  }
  if (props && Object.keys(props).some((name) => /^t([A-Z]|$)/.test(name))) translateOne(element);
  element.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

export const byId = (id) => document.getElementById(id);

/** Puts `children` in place of what is in `element`. */
export const fill = (element, ...children) => element.replaceChildren(...children.flat(Infinity).filter(Boolean));

/** A stroke icon of 16 by 16. */
export const icon = (d) => h('svg', { class: 'icon', viewBox: '0 0 16 16', 'aria-hidden': 'true' }, h('path', { d }));

/** Says something to those who do not see it; once, and not at every change of the list. */
export function announce(text) {
  byId('live').textContent = text;
}

let fading;
/** Says something for some seconds, to all. */
export function toast(text) {
  const box = byId('toast');
  box.textContent = text;
  box.classList.add('shown');
  announce(text);
  clearTimeout(fading);
  fading = setTimeout(() => box.classList.remove('shown'), 6000);
}

export async function copy(text, said) {
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    // Without a secure context there is no clipboard API; 127.0.0.1 is one, an address of the LAN is not.
    const area = h('textarea', { class: 'unseen', 'aria-hidden': 'true' });
    area.value = text;
    document.body.append(area);
    area.select();
    document.execCommand('copy');
    area.remove();
  }
  toast(said);
}

/** `1.2 ms` of microseconds. */
export function duration(us) {
  if (us === null || us === undefined) return '';
  if (us < 1000) return `${us} µs`;
  if (us < 100_000) return `${(us / 1000).toFixed(us < 10_000 ? 2 : 1)} ms`;
  return us < 1_000_000 ? `${Math.round(us / 1000)} ms` : `${(us / 1e6).toFixed(2)} s`;
}

/** `2 h 5 min` of seconds. */
export function span(seconds) {
  if (seconds === null || seconds === undefined) return '–';
  const s = Math.max(0, Math.round(seconds));
  if (s < 120) return t('span.s', { n: s });
  if (s < 7200) return t('span.min', { n: Math.floor(s / 60) });
  return t('span.h', { n: Math.floor(s / 3600), m: Math.floor((s % 3600) / 60) });
}

export function size(bytes) {
  if (bytes < 1024) return `${bytes} B`;
  return bytes < 1024 * 1024 ? `${(bytes / 1024).toFixed(1)} KiB` : `${(bytes / 1024 / 1024).toFixed(1)} MiB`;
}

/** The time of day, with milliseconds: `12:03:07.042`. */
export function clock(ms) {
  const at = new Date(ms);
  const two = (n) => String(n).padStart(2, '0');
  return `${two(at.getHours())}:${two(at.getMinutes())}:${two(at.getSeconds())}.${String(at.getMilliseconds()).padStart(3, '0')}`;
}

export const moment = (ms) => new Date(ms).toLocaleString(language() === 'zh' ? 'zh-CN' : 'en-GB');

/** How a status looks: its class for the colour, and a shape for those who do not see the colour. */
export function shapeOf(status) {
  if (!status) return ['none', '○'];
  if (status >= 500) return ['bad', '■'];
  if (status >= 400) return ['warn', '▲'];
  return status >= 300 ? ['moved', '◆'] : ['good', '●'];
}

export function statusChip(entry) {
  if (entry.state === 'open' && !entry.status) return h('span', { class: 'status none', tTitle: 'state.open', text: '○ …' });
  if (entry.kind === 'push' && entry.outcome) {
    const look = { delivered: 'good', waiting: 'none', dead: 'bad' }[entry.outcome] ?? 'none';
    const shape = { good: '●', bad: '■', none: '○' }[look];
    return h('span', { class: `status ${look}`, text: `${shape} ${entry.status ?? '–'}` });
  }
  const [look, shape] = shapeOf(entry.status);
  // WeChat says 200 to its refusals.
  const refused = look === 'good' && entry.errcode;
  return h('span', { class: `status ${refused ? 'warn' : look}`, text: `${refused ? '▲' : shape} ${entry.status ?? '–'}` });
}
