// An exchange as a curl command, for a shell. The server masks secrets; each mask becomes a variable that the reader
// fills in, so the command never pretends to hold a token.

/** A masked secret; its first characters may stand there. */
const MASK = /[\w-]*\*{3}/;
/** What curl says by itself, and what holds for one connection only. */
const NOT_COPIED = /^(:|(host|content-length|connection|keep-alive|transfer-encoding|te|trailer|upgrade|expect|accept-encoding|sec-websocket-.*|x-forwarded-.*)$)/i;

/** `{text, variables, file}`: the command, the names of its variables, and whether the body is to be put into a file first. */
export function curlOf(it, origin) {
  const variables = new Set();
  const word = (text, name) => quoted(text, name, variables);
  // What the client called us may be anything: nobody's token is to go there. `-g`, for to curl brackets are lists.
  const place = origin === undefined ? variable('SIDECAR', variables) + word(it.target, 'SECRET') : word(origin + it.target, 'SECRET');
  const lines = [`curl -ig ${place}`];
  const { body } = it.phone;
  const file = Boolean(body?.size) && (body.text === null || body.kept < body.size);
  if (it.method !== (body?.size ? 'POST' : 'GET')) lines.push(it.method === 'HEAD' ? '-I' : `-X ${word(it.method, '')}`);
  for (const [name, value] of it.phone.fields) {
    if (!NOT_COPIED.test(name)) lines.push(`-H ${word(`${name}: ${value}`, variableOf(name))}`);
  }
  if (file) lines.push('--data-binary @body');
  else if (body?.size) lines.push(`--data-raw ${maskedJson(body.text, variables)}`);
  return { text: lines.join(' \\\n  '), variables: [...variables], file };
}

function variableOf(header) {
  if (/^authorization$/i.test(header)) return 'TOKEN';
  const name = header.replace(/^x-wx-/i, '').replace(/[^a-z0-9]+/gi, '_').toUpperCase() || 'SECRET';
  // `$3RD` is the third argument and `RD`.
  return /^\d/.test(name) ? `_${name}` : name;
}

/** JSON whose masked members become variables of their names; `&name=***` likewise. */
function maskedJson(text, variables) {
  const parts = text.split(MASK);
  let all = '';
  parts.forEach((part, at) => {
    all += single(part);
    if (at === parts.length - 1) return;
    const name = /([\w-]+)"?\s*[:=]\s*"?$/.exec(part)?.[1] ?? 'secret';
    all += variable(variableOf(name), variables);
  });
  return all;
}

function quoted(text, name, variables) {
  const named = (part) => /[?&]([\w-]+)=$/.exec(part)?.[1];
  const parts = text.split(MASK);
  return parts.map((part, at) => single(part) + (at < parts.length - 1 ? variable(variableOf(named(part) ?? name), variables) : '')).join('');
}

function variable(name, variables) {
  variables.add(name);
  return `"$${name}"`;
}

/** In single quotes nothing means anything to a shell but the quote itself. */
const single = (text) => (text ? `'${text.replace(/'/g, "'\\''")}'` : '');
