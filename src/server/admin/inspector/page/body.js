// Bodies, as they are best read: JSON laid out and foldable, pictures as pictures, bytes as bytes.

import { h, size } from './dom.js';
import { t } from './words.js';

/** Containers with more lines than this are folded. */
const FOLDED = 60;
/** More members than this of one container are not drawn: nobody reads them, and the browser would stutter. */
const MOST = 300;
const DEEPEST = 100;

/** A body of the server's: `{size, kept, text, base64}` or null. */
export function bodyView(body, type = '') {
  if (!body || !body.size) return h('p', { class: 'none', t: 'body.none' });
  const parts = [];
  const whole = body.kept >= body.size;
  if (!whole) parts.push(h('p', { class: 'note', text: t(body.kept ? 'body.cut' : 'body.unseen', { kept: size(body.kept), size: size(body.size) }) }));
  const picture = /^image\/(png|jpeg|gif|webp)\b/i.exec(type);
  if (picture && body.base64) {
    const shown = h('img', { class: 'picture', src: `data:${picture[0].toLowerCase()};base64,${body.base64}`, alt: t('body.picture', { type: picture[0], size: size(body.size) }) });
    // The beginning of a picture is often enough to see it; if not, there are its bytes.
    shown.addEventListener('error', () => shown.replaceWith(bytesView(body.base64)));
    parts.push(shown);
  } else if (body.text) {
    const json = whole && /^\s*[[{]/.test(body.text) ? jsonOf(body.text) : null;
    parts.push(json ? jsonView(json) : h('pre', { class: 'code', tabindex: '0', text: body.text }));
  } else if (body.base64) {
    parts.push(bytesView(body.base64));
  }
  parts.push(h('p', { class: 'fine', text: [type, size(body.size)].filter(Boolean).join(' · ') }));
  return h('div', { class: 'body' }, parts);
}

const bytesView = (base64) => h('pre', { class: 'code bytes', tabindex: '0', text: hex(base64) });

/** The first bytes as `hexdump -C` shows them. */
function hex(base64) {
  const bytes = Uint8Array.from(atob(base64).slice(0, 512), (c) => c.charCodeAt(0));
  const lines = [];
  for (let at = 0; at < bytes.length; at += 16) {
    const line = [...bytes.subarray(at, at + 16)];
    const numbers = line.map((b) => b.toString(16).padStart(2, '0')).join(' ').padEnd(48);
    const text = line.map((b) => (b > 31 && b < 127 ? String.fromCharCode(b) : '.')).join('');
    lines.push(`${at.toString(16).padStart(4, '0')}  ${numbers} ${text}`);
  }
  return lines.join('\n');
}

/** JSON that is a value already. */
export const valueView = (value) => jsonView(jsonOf(JSON.stringify(value)));

/**
 * JSON as a tree of `{kind, text}` and `{kind, members: [[name, node]…], lines}`, or null if it is none. Not by
 * JSON.parse: it would round message ids, which have 19 digits, and lose names that come twice.
 */
function jsonOf(text) {
  const tokens = /\s*(?:([{}[\],:])|("(?:[^"\\]|\\.)*")|(-?\d[\d.eE+-]*)|(true|false|null))/gy;
  let found = null;
  const next = () => {
    found = tokens.exec(text);
    if (!found) throw new SyntaxError('not JSON');
    return found[0].trim();
  };
  const value = (token, depth) => {
    if (depth > DEEPEST) throw new SyntaxError('too deep');
    if (token === '{' || token === '[') return container(token, depth);
    if (found[1]) throw new SyntaxError('not JSON');
    return { kind: found[2] ? 'string' : found[3] ? 'number' : 'word', text: token };
  };
  const container = (opening, depth) => {
    const closing = opening === '{' ? '}' : ']';
    const node = { kind: opening, members: [], lines: 2 };
    for (let token = next(); token !== closing; token = next()) {
      if (node.members.length) {
        if (token !== ',') throw new SyntaxError('not JSON');
        token = next();
      }
      let name = null;
      if (opening === '{') {
        name = token;
        if (!found[2] || next() !== ':') throw new SyntaxError('not JSON');
        token = next();
      }
      const member = value(token, depth + 1);
      node.members.push([name, member]);
      node.lines += member.lines ?? 1;
    }
    return node;
  };
  try {
    const tree = value(next(), 0);
    return text.slice(tokens.lastIndex).trim() ? null : tree;
  } catch {
    return null;
  }
}

const jsonView = (tree) => h('div', { class: 'code json', tabindex: '0', role: 'group', 'aria-label': 'JSON' }, node(tree, null, '', true));

function node(it, name, comma, top) {
  const label = name === null ? [] : [h('span', { class: 'j-name', text: name }), ': '];
  if (!it.members) return h('div', null, label, h('span', { class: `j-${it.kind}`, text: readable(it) }), comma);
  const closing = it.kind === '{' ? '}' : ']';
  if (!it.members.length) return h('div', null, label, it.kind + closing + comma);
  const last = it.members.length - 1;
  const inside = () => {
    const shown = it.members.slice(0, MOST).map(([member, value], at) => node(value, member, at < last ? ',' : '', false));
    if (last >= MOST) shown.push(h('div', { class: 'j-more', text: t('body.more', { n: it.members.length - MOST }) }));
    return h('div', { class: 'j-inside' }, shown);
  };
  const summary = h('summary', null, label, it.kind, h('span', { class: 'j-folded', text: ` ${t('body.members', { n: it.members.length })} ${closing}${comma}` }));
  const shown = top || it.lines <= FOLDED;
  const details = h('details', { open: shown }, summary);
  // What is folded is drawn when it is looked at.
  if (shown) details.append(inside());
  else details.addEventListener('toggle', () => details.append(inside()), { once: true });
  return h('div', null, details, h('div', { class: 'j-end', text: closing + comma }));
}

/** A string without its escapes for characters that can be shown: `\u4f60` is hard to read. */
function readable({ kind, text }) {
  if (kind !== 'string') return text;
  return text.replace(/\\u([0-9a-f]{4})/gi, (escape, digits) => {
    const code = parseInt(digits, 16);
    // Controls, marks that turn the direction of writing, and halves of a pair stay as they are.
    const plain = code > 0x9f && !(code >= 0x200b && code <= 0x206f) && !(code >= 0xd800 && code <= 0xdfff) && code !== 0xfeff;
    return plain ? String.fromCharCode(code) : escape;
  }).replace(/\\\//g, '/');
}
