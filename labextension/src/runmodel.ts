/** A notebook that is to be run: what it takes, what was typed, and the job that runs it. No DOM, no application. */
import { IDisposable } from '@lumino/disposable';
import { Debouncer } from '@lumino/polling';
import { ISignal, Signal } from '@lumino/signaling';

import { Client, Order, Refused } from './client';
import { Followed, over, start } from './jobs';
import { Field, Form, Job, OrderChecked, Row } from './records';

/** What is asked for beside the parameters. */
export interface IHow {
  sweep: boolean;
  target: string;
  cache: 'off' | 'notebook' | 'cells';
  retries: string;
  timeout: string;
  cellTimeout: string;
  ticket: string;
  best: string;
  draws: string;
}

/** Fields of `IHow` that are numbers. */
const NUMBERS = ['retries', 'timeout', 'cellTimeout', 'draws'] as const;
const CHECK = 300;

export class RunModel implements IDisposable {
  constructor(
    readonly client: Client,
    readonly path: string
  ) {
    this.checking = new Debouncer(() => this.check(), CHECK);
    void this.load();
    void this.find();
  }

  form: Form | null = null;
  problem: Refused | null = null;
  /** The words typed so far, by parameter; secret ones are nowhere else. */
  readonly words = new Map<string, string>();
  how: IHow = {
    sweep: false,
    target: '',
    cache: 'off',
    retries: '',
    timeout: '',
    cellTimeout: '',
    ticket: '',
    best: '',
    draws: ''
  };
  checked: OrderChecked | null = null;
  /** The job that was last asked for. */
  job: Followed | null = null;
  /** The cell runs of the run, once it is over. */
  rows: Row[] = [];
  starting = false;

  get changed(): ISignal<this, void> {
    return this._changed;
  }

  /** A job that this page has waited for is over. */
  get ended(): ISignal<this, Job> {
    return this._ended;
  }

  get isDisposed(): boolean {
    return this._isDisposed;
  }

  dispose(): void {
    if (!this._isDisposed) {
      this._isDisposed = true;
      this.words.clear();
      this.checking.dispose();
      this.job?.dispose();
      Signal.clearData(this);
    }
  }

  get busy(): boolean {
    return this.starting || (this.job !== null && !over(this.job.job));
  }

  /** Read the notebook's parameters anew, as it was saved. */
  async load(): Promise<void> {
    try {
      this.form = await this.client.form(this.path);
      this.problem = null;
    } catch (error) {
      this.problem = refused(error);
    }
    this.emit();
    void this.checking.invoke();
  }

  set(field: Field, word: string): void {
    if (word === '') {
      this.words.delete(field.name);
    } else {
      this.words.set(field.name, word);
    }
    this.emit();
    void this.checking.invoke();
  }

  ask(how: Partial<IHow>): void {
    this.how = { ...this.how, ...how };
    this.emit();
    void this.checking.invoke();
  }

  /** What is wrong with a number that is asked for beside the parameters. */
  wrong(name: keyof IHow): boolean {
    const text = String(this.how[name]).trim();
    if (!(NUMBERS as readonly string[]).includes(name) || text === '') {
      return false;
    }
    const value = Number(text);
    switch (name) {
      case 'retries':
        return !(Number.isInteger(value) && value >= 0 && value <= 100);
      case 'draws':
        return !(Number.isInteger(value) && value >= 1 && value <= 10000);
      default:
        return !(Number.isFinite(value) && value > 0);
    }
  }

  /** Whether it can be run as it stands. */
  get ready(): boolean {
    return (
      this.form !== null &&
      !NUMBERS.some(name => this.wrong(name)) &&
      this.checked !== null &&
      !this.checked.problem &&
      Object.keys(this.checked.problems).length === 0
    );
  }

  async run(): Promise<void> {
    if (this.busy) {
      return;
    }
    this.starting = true;
    this.emit();
    await this.check();
    if (this.ready) {
      try {
        this.follow(await start(this.client, this.path, this.order()), true);
        for (const field of this.form?.fields ?? []) {
          if (field.secret) {
            this.words.delete(field.name); // the job has it now
          }
        }
        this.problem = null;
      } catch (error) {
        this.problem = refused(error);
      }
    }
    this.starting = false;
    this.emit();
  }

  private order(): Order {
    const { how } = this;
    const known = new Set(this.form?.fields.map(field => field.name));
    const number = (text: string) => (text.trim() === '' ? null : Number(text));
    const given = {
      parameters: Object.fromEntries([...this.words].filter(([name]) => known.has(name))),
      target: how.target,
      cache: how.cache,
      retries: number(how.retries) ?? 0,
      timeout: number(how.timeout),
      cell_timeout: number(how.cellTimeout),
      tickets: how.ticket.split(/[\s,]+/).filter(one => one)
    };
    return how.sweep
      ? { verb: 'sweep', sent: { ...given, best: how.best, draws: number(how.draws) } }
      : { verb: 'run', sent: given };
  }

  private async check(): Promise<void> {
    if (!this.form || this._isDisposed || NUMBERS.some(name => this.wrong(name))) {
      return;
    }
    const turn = ++this.turn;
    let checked: OrderChecked | null = null;
    let problem: Refused | null = null;
    try {
      checked = await this.client.allows(this.path, this.order());
    } catch (error) {
      problem = refused(error);
    }
    if (turn === this.turn) {
      this.checked = checked;
      this.problem = problem;
      this.emit();
    }
  }

  /** Find the job that an earlier page has asked for. */
  private async find(): Promise<void> {
    try {
      const { jobs } = await this.client.jobs(this.path);
      const last = jobs.find(one => one.verb === 'run' || one.verb === 'sweep');
      if (last && !this.job && !this._isDisposed) {
        this.follow(new Followed(this.client, last), !over(last));
      }
    } catch (error) {
      this.problem = refused(error);
      this.emit();
    }
  }

  private follow(job: Followed, tell: boolean): void {
    this.job?.dispose();
    this.job = job;
    this.rows = [];
    job.changed.connect(this.emit, this);
    void job.ended.then(async found => {
      if (found.run && found.verb === 'run') {
        try {
          this.rows = (await this.client.rowsOf(this.path, found.run)).rows.reverse();
        } catch (error) {
          this.problem = refused(error);
        }
      }
      this.emit();
      if (tell && !this._isDisposed) {
        this._ended.emit(found);
      }
    });
    this.emit();
  }

  private emit(): void {
    if (!this._isDisposed) {
      this._changed.emit();
    }
  }

  private checking: Debouncer;
  private turn = 0;
  private _isDisposed = false;
  private _changed = new Signal<this, void>(this);
  private _ended = new Signal<this, Job>(this);
}

function refused(error: unknown): Refused {
  return error instanceof Refused ? error : new Refused('Failed', `${error}`);
}

/** Where a file that a job names is, as the server's contents know it; null where they do not. */
export function placed(job: Job, name: unknown): string | null {
  if (typeof name !== 'string' || !name || /^(\/|~)/.test(name) || job.root.startsWith('..')) {
    return null;
  }
  return job.root === '.' || job.root === '' ? name : `${job.root}/${name}`;
}
