/** What the page knows of each notebook. No DOM, no application. */
import type { ISessionContext } from '@jupyterlab/apputils';
import type { DocumentRegistry } from '@jupyterlab/docregistry';
import type { Contents } from '@jupyterlab/services';
import { IDisposable } from '@lumino/disposable';
import { Debouncer, Poll } from '@lumino/polling';
import { ISignal, Signal } from '@lumino/signaling';

import { Client, IFilter, Refused } from './client';
import { KernelLink } from './kernel';
import { CellDetail, Finding, Overview, PROTOCOL, Row, StandingAnswer } from './records';
import { RunTable } from './runtable';
import { KernelClient } from './through';

export const PAGE = 200;
/** Milliseconds between two looks at whether something else is on record: while it is shown, and while not. */
const LOOK = 3000;
const GLANCE = 20000;
const SETTLE = 250;
/** Refusals after which nothing of what the server said before holds. */
const GONE = new Set(['ProjectMissing', 'StoreMissing', 'StoreFormat', 'Outside', 'ServerMissing']);

interface IPage {
  generation: number;
  rows: Row[];
}

/**
 * A long list of cell runs, of which only what is looked at is fetched.
 *
 * The server numbers them from the oldest, so a number stays with its cell run while new ones come. What the kernel tells
 * stands on top until the server has it too.
 */
export class RowList {
  constructor(
    private client: () => Client,
    private path: () => string,
    private changed: () => void
  ) {}

  filter: IFilter = { search: '', status: '' };
  /** How many are on record in all. */
  total = 0;
  /** A first answer has come. */
  known = false;
  busy = false;
  problem: Refused | null = null;

  get filtered(): boolean {
    return this.filter.search.trim() !== '' || this.filter.status !== '';
  }

  /** How many rows there are to show by now. */
  get length(): number {
    return this.filtered ? this.hits.length : this.fresh.length + this.total;
  }

  /** Whether a search may find more. */
  get more(): boolean {
    return this.filtered && this.next !== null;
  }

  /** The row at a place from the top; null where it is not fetched yet. */
  at(place: number): Row | null {
    if (this.filtered) {
      return this.hits[place] ?? null;
    }
    if (place < this.fresh.length) {
      return this.fresh[place];
    }
    const position = this.total - 1 - (place - this.fresh.length);
    const page = this.pages.get(Math.floor(position / PAGE));
    return page?.rows.find(row => row.position === position) ?? null;
  }

  setFilter(filter: IFilter): void {
    this.filter = filter;
    this.refresh();
  }

  /** Forget nothing that is shown, and fetch it anew. */
  refresh(): void {
    this.generation++;
    this.hits = this.filtered && this.hitsOf === this.words() ? this.hits : [];
    this.next = null;
    void this.fetch(null);
  }

  /** Forget what the server said; and, unless it is another notebook's, keep what the kernel told. */
  clear(fresh: boolean): void {
    this.generation++;
    this.pages.clear();
    this.fresh = fresh ? [] : this.fresh;
    this.hits = [];
    this.next = null;
    this.total = 0;
    this.known = false;
    this.busy = false;
    this.problem = null;
  }

  /** See to it that these places are fetched. */
  ensure(first: number, last: number): void {
    if (this.filtered) {
      if (this.next !== null && last >= this.hits.length - 1) {
        void this.fetch(this.next);
      }
      return;
    }
    const top = this.total - 1 - (first - this.fresh.length);
    const bottom = Math.max(0, this.total - 1 - (last - this.fresh.length));
    for (let number = Math.floor(top / PAGE); number >= Math.floor(bottom / PAGE); number--) {
      if (number >= 0 && this.pages.get(number)?.generation !== this.generation) {
        void this.fetch(Math.min(this.total, (number + 1) * PAGE));
      }
    }
  }

  /** Take in what the kernel told. */
  tell(row: Row): void {
    for (const page of this.pages.values()) {
      const at = page.rows.findIndex(one => one.id === row.id);
      if (at >= 0) {
        page.rows[at] = {
          ...row,
          trigger: page.rows[at].trigger,
          position: page.rows[at].position
        };
        return;
      }
    }
    const at = this.fresh.findIndex(one => one.id === row.id);
    if (at >= 0) {
      this.fresh[at] = row;
    } else {
      this.fresh.unshift(row);
      this.fresh.length = Math.min(this.fresh.length, PAGE);
    }
  }

  private async fetch(before: number | null): Promise<void> {
    const key = `${this.generation}:${before}`;
    if (this.asked === key) {
      return;
    }
    this.asked = key;
    const generation = this.generation;
    const words = this.words();
    const path = this.path();
    const limit =
      before === null || this.filtered ? PAGE : before - Math.floor((before - 1) / PAGE) * PAGE;
    this.busy = true;
    try {
      const found = await this.client().rows(
        path,
        before,
        limit,
        this.filtered ? this.filter : undefined
      );
      if (generation !== this.generation || path !== this.path()) {
        return;
      }
      if (before === null || words) {
        this.total = found.total; // while pieces are fetched, no number may move
      }
      if (words) {
        this.hits = before === null ? found.rows : [...this.hits, ...found.rows];
        this.hitsOf = words;
        this.next = found.next;
      } else {
        this.take(found.rows);
      }
      this.known = true;
      this.problem = null;
      if (words && found.next !== null && this.hits.length < 40) {
        setTimeout(() => this.next === found.next && void this.fetch(found.next), 0);
      }
    } catch (error) {
      if (!(error instanceof Refused)) {
        throw error;
      }
      if (generation === this.generation) {
        this.problem = error;
        this.asked = ''; // it may be asked for again
      }
    } finally {
      if (generation === this.generation) {
        this.busy = false;
        this.changed();
      }
    }
  }

  /** Put rows into their pages; what the server has is fresh no more. */
  private take(rows: Row[]): void {
    const ids = new Set(rows.map(row => row.id));
    this.fresh = this.fresh.filter(row => !ids.has(row.id));
    for (const row of rows) {
      const number = Math.floor(row.position / PAGE);
      let page = this.pages.get(number);
      if (page?.generation !== this.generation) {
        page = { generation: this.generation, rows: [] };
        this.pages.set(number, page);
      }
      page.rows.push(row);
    }
    // The oldest page of an answer may be a part of itself: it is fetched whole when it is looked at.
    const low = rows[rows.length - 1];
    if (low && low.position % PAGE !== 0) {
      const page = this.pages.get(Math.floor(low.position / PAGE));
      if (page) {
        page.generation = -1;
      }
    }
  }

  private words(): string {
    return this.filtered ? JSON.stringify(this.filter) : '';
  }

  private pages = new Map<number, IPage>();
  private fresh: Row[] = [];
  private hits: Row[] = [];
  private hitsOf = '';
  private next: number | null = null;
  private generation = 0;
  private asked = '';
}

/** What is known of one open notebook. */
export class Book implements IDisposable {
  constructor(
    private server: Client,
    private context: DocumentRegistry.IContext<DocumentRegistry.IModel>,
    session: ISessionContext,
    private contents: Contents.IManager
  ) {
    this.link = new KernelLink(session);
    this.kernel = new KernelClient(server.settings, this.link);
    this.list = new RowList(
      () => this.client,
      () => this.path,
      () => this._changed.emit()
    );
    this.table = new RunTable(
      () => this.client,
      () => this.path,
      () => this._changed.emit()
    );
    this.link.changed.connect(this.onHello, this);
    this.link.told.connect(this.onTold, this);
    context.pathChanged.connect(this.onPath, this);
    context.fileChanged.connect(this.askStanding, this);
    this.settle = new Debouncer(() => this.refresh(), SETTLE);
    this.stand = new Debouncer(() => this.fetchStanding(), 1000);
    this.poll = new Poll({
      name: 'jupyter-mlops:look',
      factory: () => this.look(),
      frequency: { interval: GLANCE, backoff: true, max: 60000 },
      standby: 'when-hidden',
      auto: false
    });
    void context.ready.then(() => {
      if (!this._isDisposed) {
        void this.poll.start();
      }
    });
  }

  /** Whom to ask for the record: the server, or a kernel whose record the server does not see. */
  get client(): Client {
    return this.through ? this.kernel : this.server;
  }

  readonly link: KernelLink;
  readonly list: RowList;
  readonly table: RunTable;
  overview: Overview | null = null;
  /** Why the record can not be read. */
  problem: Refused | null = null;
  /** Why the server can not read it, where the kernel does. */
  unseen: Refused | null = null;
  standing: StandingAnswer | null = null;
  /** The last run of each cell, by the cell's id. */
  readonly cells = new Map<string, Row>();
  /** Why a cell is not what the notebook says, by the cell's id. */
  readonly findings = new Map<string, Finding[]>();

  /** Anything of this is another than before. */
  get changed(): ISignal<this, void> {
    return this._changed;
  }

  get isDisposed(): boolean {
    return this._isDisposed;
  }

  /** Its path, as the server's contents know it. */
  get path(): string {
    return this.contents.localPath(this.context.path);
  }

  /** The path of the folder it is in. */
  get folder(): string {
    return this.path.split('/').slice(0, -1).join('/');
  }

  /** The path of something else in its folder. */
  beside(name: string): string {
    return this.folder ? `${this.folder}/${name}` : name;
  }

  /** The path by which the server's contents know a file of the project; null where they do not show it. */
  place(name: string): string | null {
    const root = this.overview?.root ?? '..';
    if (root.startsWith('..') || /^(\/|~|\.\.)/.test(name)) {
      return null;
    }
    const drive = this.contents.driveName(this.context.path);
    const local = root === '.' ? name : `${root}/${name}`;
    return drive ? `${drive}:${local}` : local;
  }

  dispose(): void {
    if (this._isDisposed) {
      return;
    }
    this._isDisposed = true;
    this.link.dispose();
    this.poll.dispose();
    this.settle.dispose();
    this.stand.dispose();
    this.context.pathChanged.disconnect(this.onPath, this);
    this.context.fileChanged.disconnect(this.askStanding, this);
    Signal.clearData(this);
  }

  /** Whether somebody looks at its list: then it is looked after more closely. */
  set watched(watched: boolean) {
    this._watched = watched;
    this.poll.frequency = { ...this.poll.frequency, interval: watched ? LOOK : GLANCE };
    if (watched && !this.list.known) {
      this.list.refresh();
    }
    if (watched && this.context.isReady) {
      void this.poll.refresh();
    }
  }

  /**
   * Whether what the kernel records is not what this server reads, and in which way: they are of other versions, or the
   * store is another one and is not shown, or it is, through the kernel.
   */
  get split(): 'protocol' | 'store' | 'kernel' | null {
    const hello = this.link.hello;
    if (hello && hello.protocol !== PROTOCOL) {
      return 'protocol';
    }
    if (this.overview && this.overview.protocol !== PROTOCOL) {
      return 'protocol';
    }
    if (this.through) {
      return 'kernel';
    }
    return hello?.store && this.overview && hello.store !== this.overview.store ? 'store' : null;
  }

  /** All that is on record of a cell run. */
  detail(id: string): Promise<CellDetail> {
    return this.client.cellRun(this.path, id);
  }

  /** The run of a cell before one of its runs; null where there is none on record. */
  async before(id: string): Promise<string | null> {
    const { row } = await this.detail(id);
    const found = await this.client.rows(this.path, null, PAGE, { cell: row.cell });
    const earlier = found.rows.filter(one => one.id !== id && one.time <= row.time);
    return earlier[0]?.id ?? null;
  }

  /** A path that the server told, as this page opens it: the notebook may be on a drive. */
  onDrive(local: string): string {
    const drive = this.contents.driveName(this.context.path);
    return drive ? `${drive}:${local}` : local;
  }

  /** Ask for everything anew. */
  async refresh(): Promise<void> {
    await this.look(true);
  }

  private async look(anew = false): Promise<void> {
    const path = this.path;
    try {
      const overview = await this.see(path);
      if (path !== this.path || this._isDisposed) {
        return;
      }
      const moved = anew || overview.mark !== this.overview?.mark;
      const first = this.overview === null;
      const told = `${this.overview?.problems}` !== `${overview.problems}`;
      this.overview = overview;
      this.problem = null;
      if (first) {
        this.tellName();
      }
      if (moved) {
        await this.reload(path);
      } else if (told) {
        this._changed.emit(); // what is damaged may be found only as it is read
      }
    } catch (error) {
      if (!(error instanceof Refused) || path !== this.path || this._isDisposed) {
        throw error;
      }
      this.problem = error;
      if (GONE.has(error.kind)) {
        this.overview = null;
        this.standing = null;
        this.findings.clear();
        this.list.clear(false);
      }
      this._changed.emit();
      if (error.kind === 'Offline') {
        throw error; // the poll then waits longer
      }
    }
  }

  /** What there is for the notebook: where the server sees another record than the kernel's, or none, by the kernel. */
  private async see(path: string): Promise<Overview> {
    let seen: Overview | null = null;
    let unseen: Refused | null = null;
    try {
      seen = await this.server.overview(path);
    } catch (error) {
      if (!(error instanceof Refused)) {
        throw error;
      }
      unseen = error;
    }
    const hello = this.link.hello;
    const through =
      hello !== null &&
      hello.answers &&
      hello.protocol === PROTOCOL &&
      hello.store !== '' &&
      (seen ? seen.store !== hello.store : GONE.has(unseen?.kind ?? ''));
    let told: Overview | null = null;
    if (through) {
      try {
        told = await this.kernel.overview(path);
      } catch (error) {
        if (!(error instanceof Refused && GONE.has(error.kind))) {
          this.read(path, true, unseen);
          throw error;
        }
        // The kernel's store is gone: what the server says of it is the better word.
      }
    }
    this.read(path, told !== null, unseen);
    if (told ?? seen) {
      return (told ?? seen) as Overview;
    }
    throw unseen;
  }

  /** Read the record through the kernel from now on, or by the server. */
  private read(path: string, through: boolean, unseen: Refused | null): void {
    if (path === this.path && !this._isDisposed) {
      this.unseen = through ? unseen : null;
      if (through !== this.through) {
        this.through = through;
        this.forget(false);
      }
    }
  }

  /** Forget what is on record; and, unless it is another notebook's, keep what the kernel told. */
  private forget(fresh: boolean): void {
    this.overview = null;
    this.standing = null;
    this.cells.clear();
    this.findings.clear();
    this.list.clear(fresh);
  }

  private async reload(path: string): Promise<void> {
    if (this._watched) {
      this.list.refresh();
    } else {
      this.list.known = false;
    }
    const cells = await this.client.cells(path);
    if (path !== this.path || this._isDisposed) {
      return;
    }
    for (const row of cells.rows) {
      this.cells.set(row.cell, row);
    }
    this._changed.emit();
    this.askStanding();
  }

  private onHello(): void {
    this.tellName();
    void this.settle.invoke();
    this._changed.emit();
  }

  /** The kernel goes by the name it was started with: a notebook may have another one since. */
  private tellName(): void {
    if (this.overview && !this.through && this.link.hello?.store === this.overview.store) {
      if (this.told !== this.overview.notebook) {
        this.told = this.overview.notebook;
        this.link.tell(this.told);
      }
    }
  }

  private onTold(_: KernelLink, row: Row): void {
    if (row.cell) {
      this.cells.set(row.cell, row);
    }
    this.list.tell(row);
    this._changed.emit();
    if (row.status !== 'running') {
      void this.settle.invoke();
    }
  }

  private onPath(): void {
    this.told = '';
    this.forget(true);
    this._changed.emit();
    void this.settle.invoke();
  }

  private askStanding(): void {
    void this.stand.invoke();
  }

  private async fetchStanding(): Promise<void> {
    if (!this.overview || this._isDisposed) {
      return;
    }
    const path = this.path;
    try {
      const same = this.split === null || this.split === 'kernel';
      const own = same ? (this.link.hello?.run ?? '') : '';
      const standing = await this.client.standing(path, own);
      if (path !== this.path || this._isDisposed) {
        return;
      }
      this.standing = standing;
      this.findings.clear();
      for (const finding of standing.findings) {
        if (finding.id) {
          this.findings.set(finding.id, [...(this.findings.get(finding.id) ?? []), finding]);
        }
      }
    } catch (error) {
      if (!(error instanceof Refused)) {
        throw error;
      }
      this.standing = null; // an unsaved or unreadable notebook: nothing is said of it
      this.findings.clear();
    }
    this._changed.emit();
  }

  private settle: Debouncer;
  private stand: Debouncer;
  private poll: Poll;
  private kernel: KernelClient;
  private through = false;
  private told = '';
  private _watched = false;
  private _isDisposed = false;
  private _changed = new Signal<this, void>(this);
}
