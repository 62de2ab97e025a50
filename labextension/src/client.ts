/** Asks the server; the only module that speaks HTTP. */
import { URLExt } from '@jupyterlab/coreutils';
import { ServerConnection } from '@jupyterlab/services';

import {
  API,
  Answered,
  Approve,
  Approved,
  Card,
  CellDetail,
  Cells,
  Check,
  CheckOut,
  Checked,
  CheckedOut,
  Compared,
  CreateEnvironment,
  DifferenceAnswer,
  EnvironmentAnswer,
  Form,
  GateRefusal,
  Init,
  Job,
  JobList,
  Lineage,
  LockEnvironment,
  MeasuredRun,
  ModelDetail,
  Models,
  Moved,
  Names,
  OrderChecked,
  Overview,
  Promote,
  RollBack,
  Rows,
  RunNotebook,
  Runs,
  Slice,
  Sliced,
  StandingAnswer,
  SweepNotebook
} from './records';

/** What a list of cell runs is asked for. */
export interface IFilter {
  search: string;
  /** States, as `error,syntax`; empty for all. */
  status: string;
}

/** Why there is no answer. `kind` is the server's own, or `ServerMissing`, `Forbidden`, `Offline`, `Kernel`. */
export class Refused extends Error {
  constructor(
    readonly kind: string,
    message: string,
    readonly cause_: string = '',
    readonly next: string = '',
    /** What was asked of a model that was refused, and answered. */
    readonly checks: Answered[] = []
  ) {
    super(message);
  }
}

/** Something that a command is run for, by its verb. */
export type Order =
  | { verb: 'run'; sent: RunNotebook }
  | { verb: 'sweep'; sent: SweepNotebook }
  | { verb: 'init'; sent: Init }
  | { verb: 'lock'; sent: LockEnvironment }
  | { verb: 'create'; sent: CreateEnvironment };

export class Client {
  constructor(readonly settings: ServerConnection.ISettings) {}

  overview(path: string): Promise<Overview> {
    return this.ask('overview', { path });
  }

  rows(
    path: string,
    before: number | null,
    limit: number,
    filter?: Partial<IFilter> & { cell?: string }
  ): Promise<Rows> {
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

  /** What a lineage can be asked of. */
  names(path: string): Promise<Names> {
    return this.ask('names', { path });
  }

  lineage(path: string, of: string): Promise<Lineage> {
    return this.ask('lineage', { path, of });
  }

  /** A piece of the list of runs: of a notebook as records spell its path, or of all where there is none. */
  runs(path: string, notebook: string, skip: number, limit: number): Promise<Runs> {
    return this.ask('runs', {
      path,
      skip: `${skip}`,
      limit: `${limit}`,
      ...(notebook ? { notebook } : {})
    });
  }

  run(path: string, id: string): Promise<MeasuredRun> {
    return this.ask(`runs/${id}`, { path });
  }

  compare(path: string, runs: readonly string[]): Promise<Compared> {
    return this.ask('compare', { path, runs: runs.join(',') });
  }

  models(path: string): Promise<Models> {
    return this.ask('models', { path });
  }

  model(path: string, name: string): Promise<ModelDetail> {
    return this.ask(`models/${encodeURIComponent(name)}`, { path });
  }

  card(path: string, name: string, version: number): Promise<Card> {
    return this.ask(`models/${encodeURIComponent(name)}/${version}/card`, { path });
  }

  check(path: string, name: string, sent: Check): Promise<Checked> {
    return this.ask(`models/${encodeURIComponent(name)}/check`, { path }, sent);
  }

  promote(path: string, name: string, sent: Promote): Promise<Moved> {
    return this.ask(`models/${encodeURIComponent(name)}/promote`, { path }, sent);
  }

  rollback(path: string, name: string, sent: RollBack): Promise<Moved> {
    return this.ask(`models/${encodeURIComponent(name)}/rollback`, { path }, sent);
  }

  approve(path: string, name: string, sent: Approve): Promise<Approved> {
    return this.ask(`models/${encodeURIComponent(name)}/approve`, { path }, sent);
  }

  /** What is different between two cell runs, or two versions of a model. */
  difference(path: string, old: string, new_: string): Promise<DifferenceAnswer> {
    return this.ask('difference', { path, old, new: new_ });
  }

  /** What a run stands in (the notebook's latest, where none is named), and what changed since another one. */
  environment(path: string, old: string, new_: string): Promise<EnvironmentAnswer> {
    return this.ask('environment', { path, old, new: new_ });
  }

  checkOut(path: string, sent: CheckOut): Promise<CheckedOut> {
    return this.ask('checkout', { path }, sent);
  }

  slice(path: string, sent: Slice): Promise<Sliced> {
    return this.ask('slice', { path }, sent);
  }

  /** The cell runs of a run, newest first. */
  rowsOf(path: string, run: string): Promise<Rows> {
    return this.ask('cell-runs', { path, run });
  }

  /** What a notebook can be given, and where it can run. */
  form(path: string): Promise<Form> {
    return this.ask('parameters', { path });
  }

  /** Whether an order to run a notebook will do. */
  allows(path: string, order: Order): Promise<OrderChecked> {
    return this.ask(`parameters/${order.verb}`, { path }, order.sent);
  }

  /** The jobs about a notebook or folder, newest first. */
  jobs(path: string): Promise<JobList> {
    return this.ask('jobs', { path });
  }

  job(id: string): Promise<Job> {
    return this.ask(`jobs/${id}`, {});
  }

  /** Have a command run. */
  start(path: string, order: Order): Promise<Job> {
    return this.ask(`jobs/${order.verb}`, { path }, order.sent);
  }

  /** Ask a job to end; a second time does not wait. */
  interrupt(id: string): Promise<Job> {
    return this.ask(`jobs/${id}`, {}, null);
  }

  /** Ask for something; or have something done, where there is anything to send, or ended, where that is null. */
  protected async ask<T>(
    route: string,
    words: Record<string, string>,
    sent?: object | null
  ): Promise<T> {
    const query = new URLSearchParams(words).toString();
    const address = `${URLExt.join(this.settings.baseUrl, API, route)}?${query}`;
    let response: Response;
    let body: unknown;
    try {
      const init = sent
        ? {
            method: 'POST',
            body: JSON.stringify(sent),
            headers: { 'Content-Type': 'application/json' }
          }
        : { method: sent === null ? 'DELETE' : 'GET' };
      response = await ServerConnection.makeRequest(address, init, this.settings);
      body = await response.json().catch(() => null);
    } catch (error) {
      throw new Refused('Offline', `${error}`);
    }
    if (response.ok && body !== null) {
      return unspelled(body) as T;
    }
    refuse(body);
    if (response.status === 404) {
      throw new Refused('ServerMissing', '');
    }
    throw new Refused(response.status === 403 ? 'Forbidden' : 'Offline', response.statusText);
  }
}

/** Say why there is no answer, where that was said. */
export function refuse(body: unknown): void {
  const refusal = unspelled(body) as Partial<GateRefusal> | null;
  if (refusal?.kind && refusal.message) {
    throw new Refused(refusal.kind, refusal.message, refusal.cause, refusal.next, refusal.checks);
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
