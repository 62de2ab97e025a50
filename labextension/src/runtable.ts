/** The runs of a notebook or project: fetched piece by piece, and arranged as a table. No DOM. */
import { Client, Refused } from './client';
import { MeasuredRun, Runs } from './records';

const PIECE = 500;
/** The first piece where most is known already. */
const GLANCE = 50;
/** Runs that still went on when they were fetched, and are asked for again. */
const ASKED = 20;
/** Different values of a column that are counted: whether there are two is what matters. */
const TOLD_APART = 12;

export type Kind = 'parameter' | 'metric' | 'fact';

export interface IColumn {
  /** `parameter:depth`, `metric:auc`, `fact:time`. */
  id: string;
  kind: Kind;
  name: string;
  /** Whether it is not the same in all runs. */
  differs: boolean;
  numeric: boolean;
}

/** What there is of any run. */
export const FACTS = ['time', 'status', 'trigger', 'notebook', 'seconds', 'user'] as const;

/** A run's value in a column; undefined where it has none. */
export function valueOf(run: MeasuredRun, column: string): unknown {
  const at = column.indexOf(':');
  const name = column.slice(at + 1);
  switch (column.slice(0, at)) {
    case 'parameter':
      return given(run, name);
    case 'metric':
      return own(run.metrics, name);
  }
  return (run as unknown as Record<string, unknown>)[name];
}

function own(values: Record<string, unknown>, name: string): unknown {
  return Object.prototype.hasOwnProperty.call(values, name) ? values[name] : undefined;
}

/** A parameter that a run was given, or that its cells logged; what a sweep itself was given are its ranges. */
function given(run: MeasuredRun, name: string): unknown {
  return own(run.trigger === 'sweep' ? {} : run.parameters, name) ?? own(run.logged, name);
}

/** The columns that runs have: parameters and metrics that differ, then those that do not, then what any run has. */
export function columnsOf(runs: readonly MeasuredRun[]): IColumn[] {
  const seen = new Map<string, { values: Set<string>; count: number; numeric: boolean }>();
  const note = (id: string, value: unknown) => {
    let one = seen.get(id);
    if (!one) {
      one = { values: new Set(), count: 0, numeric: true };
      seen.set(id, one);
    }
    one.count++;
    one.numeric = one.numeric && typeof value === 'number';
    if (one.values.size < TOLD_APART) {
      one.values.add(typeof value === 'object' ? JSON.stringify(value) : `${typeof value}${value}`);
    }
  };
  let measured = 0;
  for (const run of runs) {
    const names =
      run.trigger === 'sweep'
        ? Object.keys(run.logged)
        : new Set([...Object.keys(run.parameters), ...Object.keys(run.logged)]);
    const own = [...names, ...Object.keys(run.metrics)];
    measured += own.length ? 1 : 0; // a session that logged nothing is like any other
    for (const name of names) {
      note(`parameter:${name}`, given(run, name));
    }
    for (const name of Object.keys(run.metrics)) {
      note(`metric:${name}`, run.metrics[name]);
    }
  }
  const columns: IColumn[] = [];
  for (const [id, one] of seen) {
    const at = id.indexOf(':');
    columns.push({
      id,
      kind: id.slice(0, at) as Kind,
      name: id.slice(at + 1),
      differs: one.values.size > 1 || (measured > 1 && one.count < measured),
      numeric: one.numeric
    });
  }
  const rank = (column: IColumn) => (column.differs ? 0 : 2) + (column.kind === 'metric' ? 1 : 0);
  columns.sort((one, other) => rank(one) - rank(other) || compareTexts(one.name, other.name));
  const facts = FACTS.map((name): IColumn => {
    return { id: `fact:${name}`, kind: 'fact', name, differs: false, numeric: name === 'seconds' };
  });
  return [...columns, ...facts];
}

function compareTexts(one: string, other: string): number {
  return one < other ? -1 : one > other ? 1 : 0;
}

export interface ISort {
  column: string;
  down: boolean;
}

/** Sort runs: numbers before texts, what has no value last, whichever way round; equal ones stay as they were. */
export function sorted(runs: readonly MeasuredRun[], by: ISort): MeasuredRun[] {
  const keyed = runs.map((run, at) => ({ run, at, value: valueOf(run, by.column) }));
  const sign = by.down ? -1 : 1;
  keyed.sort((one, other) => {
    const a = rankOf(one.value);
    const b = rankOf(other.value);
    if (a !== b) {
      return a - b;
    }
    let found = 0;
    if (a === 0) {
      found = (one.value as number) - (other.value as number);
    } else if (a === 1) {
      found = compareTexts(textOf(one.value), textOf(other.value));
    }
    return sign * found || one.at - other.at;
  });
  return keyed.map(one => one.run);
}

function rankOf(value: unknown): number {
  if (value === undefined || value === null || (typeof value === 'number' && isNaN(value))) {
    return 2;
  }
  return typeof value === 'number' ? 0 : 1;
}

function textOf(value: unknown): string {
  return typeof value === 'string' ? value : (JSON.stringify(value) ?? '');
}

export interface IRunFilter {
  search: string;
  /** How it was begun: `session`, `papermill`; empty for any. */
  trigger: string;
  /** How it ended; empty for any. */
  status: string;
}

/** The runs that have all words of a search in what is known of them, a kind and a state. */
export function filtered(runs: readonly MeasuredRun[], by: IRunFilter): MeasuredRun[] {
  const words = by.search.toLowerCase().split(/\s+/).filter(Boolean);
  return runs.filter(run => {
    if ((by.trigger && run.trigger !== by.trigger) || (by.status && run.status !== by.status)) {
      return false;
    }
    if (!words.length) {
      return true;
    }
    const text = searched(run);
    return words.every(word => text.includes(word));
  });
}

const texts = new WeakMap<MeasuredRun, string>();

function searched(run: MeasuredRun): string {
  let text = texts.get(run);
  if (text === undefined) {
    const pairs = [run.parameters, run.logged, run.metrics].flatMap(values =>
      Object.entries(values).map(([name, value]) => `${name}=${textOf(value)}`)
    );
    text = [
      run.id.slice(run.id.indexOf(':') + 1),
      run.notebook,
      run.trigger,
      run.status,
      run.user,
      run.error,
      run.result,
      ...run.tickets.map(one => one.id),
      ...pairs
    ]
      .join('\n')
      .toLowerCase();
    texts.set(run, text);
  }
  return text;
}

/** Round numbers that divide a range. */
export function ticks(low: number, high: number, count: number): number[] {
  if (!(high > low)) {
    return [low];
  }
  const rough = (high - low) / Math.max(1, count);
  const power = 10 ** Math.floor(Math.log10(rough));
  const unit = ([1, 2, 5].find(one => one * power >= rough) ?? 10) * power;
  const found: number[] = [];
  for (let at = Math.ceil(low / unit); at * unit <= high + unit * 1e-9; at++) {
    found.push(Number((at * unit).toPrecision(12)));
  }
  return found;
}

/** How values of a column are put on an axis: from 0 to 1. */
export interface IScale {
  /** Where a value stands; null where it has no place. */
  at: (value: unknown) => number | null;
  marks: { at: number; label: string | number }[];
  log: boolean;
}

/** An axis for a column: by number, by logarithm where numbers span three powers of ten, or a place for each text. */
export function scaleOf(values: readonly unknown[]): IScale {
  const numbers = values.filter((one): one is number => typeof one === 'number' && isFinite(one));
  const others = values.filter(one => rankOf(one) === 1);
  if (others.length || !numbers.length) {
    const names = [...new Set([...numbers.map(String), ...others.map(textOf)])].sort(compareTexts);
    const place = new Map(names.map((name, at) => [name, (at + 0.5) / names.length]));
    const each = Math.max(1, Math.ceil(names.length / 8));
    return {
      at: value => place.get(typeof value === 'number' ? String(value) : textOf(value)) ?? null,
      marks: names
        .filter((_, at) => at % each === 0)
        .map(name => ({ at: place.get(name) as number, label: name })),
      log: false
    };
  }
  const low = numbers.reduce((least, one) => Math.min(least, one), Infinity);
  const high = numbers.reduce((most, one) => Math.max(most, one), -Infinity);
  const log = low > 0 && high / low >= 1000;
  const read = (value: number) => (log ? Math.log10(value) : value);
  const from = read(low);
  const span = read(high) - from;
  const at = (value: number) => (span > 0 ? (read(value) - from) / span : 0.5);
  const marks = log
    ? ticks(Math.ceil(from), Math.floor(read(high)), 5)
        .filter(Number.isInteger)
        .map(power => 10 ** power)
    : ticks(low, high, 4);
  return {
    at: value =>
      typeof value === 'number' && isFinite(value) && (!log || value > 0) ? at(value) : null,
    marks: marks.map(mark => ({ at: at(mark), label: mark })),
    log
  };
}

/** The runs of a notebook, or of its project, as they are fetched. */
export class RunTable {
  constructor(
    private client: () => Client,
    private path: () => string,
    private changed: () => void
  ) {}

  /** Newest first. */
  runs: MeasuredRun[] = [];
  /** How many there are in all. */
  total = 0;
  known = false;
  busy = false;
  problem: Refused | null = null;

  /** Of a notebook, as records spell its path, or of the whole project where it is empty. */
  get notebook(): string {
    return this._notebook;
  }

  /** See to it that what is on record by now is fetched. */
  ensure(notebook: string, mark: string): void {
    const key = `${this.path()}\n${notebook}`;
    if (key !== this.key) {
      this.key = key;
      this._notebook = notebook;
      this.runs = [];
      this.total = 0;
      this.known = false;
      this.mark = null;
    }
    if (mark !== this.mark) {
      this.mark = mark;
      void this.fetch(key, mark);
    }
  }

  /** Ask again for what was refused. */
  retry(): void {
    if (this.mark !== null && !this.busy) {
      void this.fetch(this.key, this.mark);
    }
  }

  /** Fetch what is new; what is known, and over, stays as it is. */
  private async fetch(key: string, mark: string): Promise<void> {
    const current = () => key === this.key && mark === this.mark;
    this.busy = true;
    try {
      const known = new Map(this.runs.map(run => [run.id, run]));
      const fresh: MeasuredRun[] = [];
      let skip: number | null = 0;
      while (skip !== null) {
        const piece = known.size && skip === 0 ? GLANCE : PIECE;
        const found: Runs = await this.client().runs(this.path(), this._notebook, skip, piece);
        if (!current()) {
          return;
        }
        fresh.push(...found.runs);
        this.total = found.total;
        skip = found.next;
        const met = found.runs.some(run => known.has(run.id));
        this.merge(fresh);
        this.known = true;
        this.problem = null;
        if (met && this.runs.length >= found.total) {
          break;
        }
        this.changed();
      }
      const ids = new Set(fresh.map(run => run.id));
      const going = this.runs.filter(run => run.status === 'running' && !ids.has(run.id));
      for (const run of going.slice(0, ASKED)) {
        const now = await this.client().run(this.path(), run.id);
        if (!current()) {
          return;
        }
        this.runs = this.runs.map(one => (one.id === now.id ? now : one));
      }
    } catch (error) {
      if (!(error instanceof Refused)) {
        throw error;
      }
      if (current()) {
        this.problem = error;
      }
    } finally {
      if (current()) {
        this.busy = false;
        this.changed();
      }
    }
  }

  private merge(fresh: MeasuredRun[]): void {
    const found = new Map(this.runs.map(run => [run.id, run]));
    fresh.forEach(run => found.set(run.id, run));
    this.runs = [...found.values()].sort((one, other) => compareTexts(other.time, one.time));
  }

  private _notebook = '';
  private key = '';
  private mark: string | null = null;
}
