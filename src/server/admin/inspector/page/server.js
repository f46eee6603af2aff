// The admin listener as the page sees it: one way to ask, the log of exchanges it keeps, and the state of the sidecar.

import { byId } from './dom.js';

let token = sessionStorage.getItem('wx-inspector-token');
/** The dialog that is open, as a promise: however many calls are refused, the user is asked once. */
let asking = null;

/** An answer that is a failure. */
export class Failed extends Error {
  constructor(status, text) {
    super(text || `HTTP ${status}`);
    this.status = status;
  }
}

/** Asks the server; the path is relative to the page. Any status from 400 on is a `Failed`. */
export async function ask(path, options = {}) {
  for (;;) {
    const headers = token ? { Authorization: `Bearer ${token}` } : {};
    const used = token;
    const answer = await fetch(path, { cache: 'no-store', ...options, headers });
    if (answer.status === 401) {
      await (asking ??= askToken(used).finally(() => { asking = null; }));
      continue;
    }
    if (!answer.ok) throw new Failed(answer.status, (await answer.text()).slice(0, 2000));
    return answer;
  }
}

function askToken(refused) {
  // Another call may have been given a new one meanwhile.
  if (token !== refused) return Promise.resolve();
  const dialog = byId('ask-token');
  byId('token-wrong').hidden = !refused;
  byId('token').value = '';
  if (!dialog.open) dialog.showModal();
  return new Promise((resolve) => {
    dialog.oncancel = (event) => event.preventDefault();
    byId('token-form').onsubmit = (event) => {
      event.preventDefault();
      token = byId('token').value.trim();
      if (!token) return;
      sessionStorage.setItem('wx-inspector-token', token);
      dialog.close();
      resolve();
    };
  });
}

const later = (ms, signal) => new Promise((resolve) => {
  const done = () => {
    clearTimeout(timer);
    // The signal outlives many a wait.
    signal?.removeEventListener('abort', done);
    resolve();
  };
  const timer = setTimeout(done, ms);
  signal?.addEventListener('abort', done);
});

/**
 * The exchanges the server remembers. Events: `change` (detail: the entries that are new or changed), `gone` (ids),
 * `reset`, `link` (whether the server can be reached).
 */
class Log extends EventTarget {
  entries = new Map();
  newest = 0;
  reached = null;
  /** Why the server answers and does not tell, in its own words; null if it does, or is not there. */
  refused = null;
  #boot = null;
  #seq = 0;
  #woken = new AbortController();
  /** Seconds for which the server may wait for something to happen; none after whatever may have changed its log. */
  #wait = 0;

  /** Asks for ever. The server answers when something has happened; at most ten times a second are enough for an eye. */
  async follow() {
    let pause = 500;
    for (;;) {
      const woken = this.#woken;
      const wait = this.#wait;
      try {
        const signal = AbortSignal.any([woken.signal, AbortSignal.timeout((wait + 10) * 1000)]);
        const page = await (await ask(`exchanges?boot=${this.#boot ?? ''}&after=${this.#seq}&wait=${wait}`, { signal })).json();
        this.#tell(true);
        pause = 500;
        this.#wait = this.#apply(page) ? 25 : 0;
        if (this.#wait) await later(100, woken.signal);
        if (woken.signal.aborted) this.#wait = 0;
      } catch (failure) {
        this.#wait = 0;
        // Woken on purpose: not a failure.
        if (woken.signal.aborted) continue;
        this.#tell(false, failure instanceof Failed ? failure.message.trim() : null);
        await later(pause, woken.signal);
        pause = Math.min(pause * 1.7, 8000);
      }
    }
  }

  /** Asks at once, whatever it waits for. */
  wake() {
    this.#woken.abort();
    this.#woken = new AbortController();
  }

  async clear() {
    await ask('clear', { method: 'POST' });
    this.wake();
  }

  /** The first entry after `id` that `fits`, when it is there; null if it does not come. */
  appears(fits, id, ms = 5000) {
    return new Promise((resolve) => {
      const look = () => {
        const found = [...this.entries.values()].filter((it) => it.id > id && fits(it)).sort((a, b) => a.id - b.id)[0];
        if (found) done(found);
      };
      const done = (found) => {
        this.removeEventListener('change', look);
        clearTimeout(timer);
        resolve(found);
      };
      const timer = setTimeout(done, ms, null);
      this.addEventListener('change', look);
      look();
    });
  }

  /** Takes an answer in; says whether it was all there was. */
  #apply(page) {
    if (this.#boot !== page.boot) {
      const first = this.#boot === null;
      this.#boot = page.boot;
      if (!first) {
        this.#seq = 0;
        this.newest = 0;
        this.entries.clear();
        this.dispatchEvent(new Event('reset'));
        return false;
      }
    }
    const gone = [];
    for (const id of this.entries.keys()) if (id < page.oldest) gone.push(id);
    for (const id of gone) this.entries.delete(id);
    for (const entry of page.entries) {
      this.entries.set(entry.id, entry);
      this.newest = Math.max(this.newest, entry.id);
    }
    this.#seq = page.seq;
    if (gone.length) this.dispatchEvent(new CustomEvent('gone', { detail: gone }));
    if (page.entries.length) this.dispatchEvent(new CustomEvent('change', { detail: page.entries }));
    return page.entries.length < 200;
  }

  #tell(reached, refused = null) {
    if (reached === this.reached && refused === this.refused) return;
    this.reached = reached;
    this.refused = refused;
    this.dispatchEvent(new CustomEvent('link', { detail: reached }));
  }
}

export const log = new Log();

/** The sidecar's state, every two seconds while somebody looks. Event: `change`. */
class State extends EventTarget {
  now = null;

  async follow() {
    for (;;) {
      if (!document.hidden) await this.refresh();
      await later(2000);
    }
  }

  async refresh() {
    try {
      this.now = await (await ask('state', { signal: AbortSignal.timeout(8000) })).json();
      this.dispatchEvent(new Event('change'));
    } catch {
      // The log says that the server is away.
    }
  }
}

export const state = new State();
