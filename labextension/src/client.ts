/** Asks the server; the only module that speaks HTTP. */
import { URLExt } from '@jupyterlab/coreutils';
import { ServerConnection } from '@jupyterlab/services';

import {
  API,
  CellDetail,
  Cells,
  ModelDetail,
  Models,
  Overview,
  Refusal,
  Rows,
  StandingAnswer
} from './records';

/** What a list of cell runs is asked for. */
export interface IFilter {
  search: string;
  /** States, as `error,syntax`; empty for all. */
  status: string;
}

/** Why there is no answer. `kind` is the server's own, or `ServerMissing`, `Forbidden`, `Offline`. */
export class Refused extends Error {
  constructor(
    readonly kind: string,
    message: string,
    readonly cause_: string = '',
    readonly next: string = ''
  ) {
    super(message);
  }
}

export class Client {
  constructor(private settings: ServerConnection.ISettings) {}

  overview(path: string): Promise<Overview> {
    return this.ask('overview', { path });
  }

  rows(path: string, before: number | null, limit: number, filter?: IFilter): Promise<Rows> {
    const words: Record<string, string> = { path, limit: `${limit}` };
    if (before !== null) {
      words.before = `${before}`;
    }
    return this.ask('cell-runs', { ...words, ...(filter ?? {}) });
  }

  cells(path: string): Promise<Cells> {
    return this.ask('cells', { path });
  }

  cellRun(path: string, id: string): Promise<CellDetail> {
    return this.ask(`cell-runs/${id}`, { path });
  }

  standing(path: string, run: string): Promise<StandingAnswer> {
    return this.ask('standing', run ? { path, run } : { path });
  }

  models(path: string): Promise<Models> {
    return this.ask('models', { path });
  }

  model(path: string, name: string): Promise<ModelDetail> {
    return this.ask(`models/${encodeURIComponent(name)}`, { path });
  }

  private async ask<T>(route: string, words: Record<string, string>): Promise<T> {
    const query = new URLSearchParams(words).toString();
    const address = `${URLExt.join(this.settings.baseUrl, API, route)}?${query}`;
    let response: Response;
    let body: unknown;
    try {
      response = await ServerConnection.makeRequest(address, { method: 'GET' }, this.settings);
      body = await response.json().catch(() => null);
    } catch (error) {
      throw new Refused('Offline', `${error}`);
    }
    if (response.ok && body !== null) {
      return unspelled(body) as T;
    }
    const refusal = unspelled(body) as Partial<Refusal> | null;
    if (refusal?.kind && refusal.message) {
      throw new Refused(refusal.kind, refusal.message, refusal.cause, refusal.next);
    }
    if (response.status === 404) {
      throw new Refused('ServerMissing', '');
    }
    throw new Refused(response.status === 403 ? 'Forbidden' : 'Offline', response.statusText);
  }
}

/** Read the store's spelling of what JSON cannot say; see `plain` in records/spelling.py. */
export function unspelled(value: unknown): unknown {
  if (typeof value === 'string') {
    return value.startsWith('~') ? unspelledText(value) : value;
  }
  if (Array.isArray(value)) {
    return value.map(unspelled);
  }
  if (value !== null && typeof value === 'object') {
    return Object.fromEntries(
      Object.entries(value).map(([key, item]) => [String(unspelled(key)), unspelled(item)])
    );
  }
  return value;
}

function unspelledText(text: string): unknown {
  switch (text) {
    case '~nan':
      return NaN;
    case '~inf':
      return Infinity;
    case '~-inf':
      return -Infinity;
  }
  const [, tag, rest] = /^~(int|utf8|bytes|type):(.*)$/s.exec(text) ?? [];
  if (tag === 'int') {
    return rest;
  }
  if (tag === 'utf8') {
    const bytes = Uint8Array.from(rest.match(/../g) ?? [], pair => parseInt(pair, 16));
    return new TextDecoder().decode(bytes);
  }
  return tag ? text : text.startsWith('~~') ? text.slice(1) : text;
}
