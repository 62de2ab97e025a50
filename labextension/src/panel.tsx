/** The side panel: which notebook, whether it is recorded, and what is on record of it. */
import { ReactWidget } from '@jupyterlab/apputils';
import type { NotebookPanel } from '@jupyterlab/notebook';
import type { TranslationBundle } from '@jupyterlab/translation';
import { Message } from '@lumino/messaging';
import { ISignal, Signal } from '@lumino/signaling';
import * as React from 'react';

import { Link, Verb } from './controls';
import { environment } from './environment';
import { lineage } from './lineage';
import type { Book } from './model';
import { models } from './models';
import { monitoring } from './monitoring';
import { Empty, Notice } from './parts';
import { runs } from './runs';
import type { ITab, IWanted } from './tabs';
import { timeline } from './timeline';
import { clean, reason, refusal } from './words';

/** The tabs, in their order. */
// prettier-ignore
const TABS: readonly ITab[] = [
  timeline,
  lineage,
  runs,
  models,
  environment,
  monitoring
];

export interface IShown {
  book: Book;
  notebook: NotebookPanel;
}

/** What the panel has the application do. */
export interface IActions {
  /** Go to a cell of a notebook. */
  jump: (notebook: NotebookPanel, cell: string) => void;
  /** Open a file of the server. */
  openFile: (path: string) => void;
  /** Make a project in a folder. */
  makeProject: (folder: string) => void;
  /** Show a lineage in the main area; null where that has no room for it. */
  enlarge: ((shown: IShown, of: string, title: string) => void) | null;
}

export class RecordPanel extends ReactWidget {
  constructor(
    private trans: TranslationBundle,
    private actions: IActions
  ) {
    super();
    this.id = 'jupyter-mlops-record';
    this.addClass('jp-mlops-panel');
    this.title.caption = trans.__('What is on record of this notebook');
    this.node.setAttribute('role', 'region');
    this.node.setAttribute('aria-label', trans.__('Record'));
  }

  /** The notebook that is shown. */
  get shown(): IShown | null {
    return this._shown;
  }

  set shown(shown: IShown | null) {
    if (shown?.book === this._shown?.book) {
      return;
    }
    const before = this._shown?.book;
    if (before && !before.isDisposed) {
      before.changed.disconnect(this.update, this);
      before.watched = false;
    }
    this._shown = shown;
    this.wanted = null;
    if (shown) {
      shown.book.changed.connect(this.update, this);
      shown.book.watched = this.isVisible;
    }
    this.update();
  }

  /** Show something in a tab, as the details of a cell run in the timeline. */
  go(tab: string, what: string): void {
    this.tab = tab;
    if (this._tab === tab) {
      this.wanted = { what, turn: ++this.turn };
      this.update();
    }
  }

  protected override onAfterShow(message: Message): void {
    super.onAfterShow(message);
    if (this._shown) {
      this._shown.book.watched = true;
    }
    this.update();
  }

  protected override onBeforeHide(message: Message): void {
    super.onBeforeHide(message);
    if (this._shown && !this._shown.book.isDisposed) {
      this._shown.book.watched = false;
    }
  }

  protected override onActivateRequest(message: Message): void {
    super.onActivateRequest(message);
    this.focusFirst(30);
  }

  /** Focus what is first of use; it may have to be drawn yet. */
  private focusFirst(frames: number): void {
    const target = this.node.querySelector<HTMLElement>(
      'input[type=search], [role=tabpanel] button'
    );
    if (target) {
      target.focus();
    } else if (frames > 0 && !this.isDisposed) {
      requestAnimationFrame(() => this.focusFirst(frames - 1));
    } else {
      this.node.querySelector<HTMLElement>('button')?.focus();
    }
  }

  /** Which tab is shown. */
  get tab(): string {
    return this._tab;
  }

  set tab(tab: string) {
    if (tab !== this._tab && TABS.some(one => one.name === tab)) {
      this._tab = tab;
      this.wanted = null;
      this._tabChanged.emit(tab);
      this.update();
    }
  }

  get tabChanged(): ISignal<this, string> {
    return this._tabChanged;
  }

  protected override render(): JSX.Element {
    const { trans, _shown: shown } = this;
    if (!shown) {
      return (
        <Empty
          heading={trans.__('No notebook is open')}
          said={[trans.__('Open one to see what is on record of it.')]}
        />
      );
    }
    return (
      <Shown
        key={shown.notebook.id}
        {...shown}
        trans={trans}
        actions={this.actions}
        wanted={this.wanted}
        tab={this._tab}
        setTab={tab => {
          this.tab = tab;
        }}
        go={(tab, what) => this.go(tab, what)}
      />
    );
  }

  private _shown: IShown | null = null;
  private _tab = TABS[0].name;
  private _tabChanged = new Signal<this, string>(this);
  private wanted: IWanted | null = null;
  private turn = 0;
}

interface IShownProps extends IShown {
  trans: TranslationBundle;
  actions: IActions;
  wanted: IWanted | null;
  tab: string;
  setTab: (tab: string) => void;
  go: (tab: string, what: string) => void;
}

function Shown(props: IShownProps): JSX.Element {
  const { book, notebook, trans, actions, wanted, tab } = props;
  const Body = (TABS.find(one => one.name === tab) ?? TABS[0]).body;
  const cells = notebook.content.model?.cells;
  const ids = new Set<string>();
  for (let at = 0; cells && at < cells.length; at++) {
    ids.add(cells.get(at).id);
  }
  const empty = book.problem !== null && book.list.length === 0;
  const name = book.path.split('/').pop() ?? '';
  return (
    <>
      <div className="jp-mlops-head">
        <h2 title={clean(book.path)}>{trans.__('Record of %1', clean(name))}</h2>
        <span className="jp-mlops-word" role="status">
          {recording(book, trans)}
        </span>
      </div>
      <Notices book={book} trans={trans} banner={!empty} />
      {empty ? (
        <Problem book={book} trans={trans} actions={actions} />
      ) : (
        <>
          <Tabs {...props} />
          <div
            className="jp-mlops-tab-body"
            role="tabpanel"
            id="jp-mlops-tab-body"
            aria-labelledby={`jp-mlops-tab-${tab}`}
          >
            <Body
              book={book}
              trans={trans}
              jump={cell => actions.jump(notebook, cell)}
              has={cell => ids.has(cell)}
              openFile={actions.openFile}
              wanted={wanted}
              go={props.go}
              enlarge={
                actions.enlarge && ((of, title) => actions.enlarge?.({ book, notebook }, of, title))
              }
            />
          </div>
        </>
      )}
    </>
  );
}

function Tabs({ trans, tab, setTab }: IShownProps): JSX.Element {
  const onKeyDown = (event: React.KeyboardEvent<HTMLElement>) => {
    const at = TABS.findIndex(one => one.name === tab);
    const moves: Record<string, number> = {
      ArrowRight: (at + 1) % TABS.length,
      ArrowLeft: (at + TABS.length - 1) % TABS.length,
      Home: 0,
      End: TABS.length - 1
    };
    if (event.key in moves) {
      event.preventDefault();
      const to = TABS[moves[event.key]].name;
      setTab(to);
      event.currentTarget.querySelector<HTMLElement>(`#jp-mlops-tab-${to}`)?.focus();
    }
  };
  return (
    <div
      className="jp-mlops-tabs"
      role="tablist"
      aria-label={trans.__('Record')}
      onKeyDown={onKeyDown}
    >
      {TABS.map(({ name, label }) => (
        <button
          key={name}
          id={`jp-mlops-tab-${name}`}
          role="tab"
          aria-selected={name === tab}
          aria-controls="jp-mlops-tab-body"
          tabIndex={name === tab ? 0 : -1}
          onClick={() => setTab(name)}
        >
          {label(trans)}
        </button>
      ))}
    </div>
  );
}

/** Whether the kernel records, in a word. */
export function recording(book: Book, trans: TranslationBundle): string {
  const hello = book.link.hello;
  return hello
    ? hello.recording
      ? trans.__('recording')
      : hello.off
        ? trans.__('not recording')
        : trans.__('paused')
    : book.link.silent
      ? trans.__('no answer yet')
      : trans.__('not recording');
}

/** That the kernel has not said yet whether it records. */
function silence(trans: TranslationBundle): string[] {
  return [
    trans.__('The kernel has not answered yet'),
    trans.__(
      'It runs a cell, or starts. Whether it records is known when it is idle; a record that only it can read is read then.'
    )
  ];
}

function Notices({
  book,
  trans,
  banner
}: {
  book: Book;
  trans: TranslationBundle;
  banner: boolean;
}): JSX.Element {
  const said: string[] = [];
  if (book.split === 'protocol') {
    const versions = [book.link.hello?.version, book.overview?.version]
      .filter(one => one)
      .map(one => clean(`${one}`));
    said.push(
      trans.__(
        'The kernel, the server and this page are of different versions (%1), and may misread one another: install the same one in each, and reload.',
        versions.join(', ')
      )
    );
  }
  if (book.link.hello?.off) {
    said.push(
      trans.__('This kernel has stopped recording, and runs on: %1', clean(book.link.hello.off))
    );
  }
  if (book.split === 'store') {
    said.push(
      trans.__(
        'This kernel records in another store than the one this server reads here: of it, only what happens now is shown.'
      )
    );
  }
  if (book.split === 'kernel') {
    said.push(
      book.unseen?.kind === 'ServerMissing'
        ? reason(book.unseen, trans)
        : trans.__(
            'This server does not see what this kernel records: the record is read through the kernel.'
          )
    );
  }
  if (banner && book.problem) {
    said.push(reason(book.problem, trans));
  }
  if (banner && book.link.silent && book.list.length === 0) {
    said.push(silence(trans).join('. '));
  }
  said.push(...(book.overview?.problems ?? []).map(clean));
  return (
    <>
      {said.map((text, at) => (
        <Notice key={at} fault>
          {text}
        </Notice>
      ))}
    </>
  );
}

function Problem({
  book,
  trans,
  actions
}: {
  book: Book;
  trans: TranslationBundle;
  actions: IActions;
}): JSX.Element {
  const problem = book.problem;
  if (!problem) {
    return <Empty heading={trans.__('Loading…')} />;
  }
  if (book.link.silent && problem.kind === 'ProjectMissing') {
    const [silent, ...why] = silence(trans);
    return <Empty heading={silent} said={why} />;
  }
  const [heading, ...said] = refusal(problem, trans);
  const code = problem.kind === 'ProjectMissing' ? '%load_ext jupyter_mlops' : '';
  return (
    <Empty heading={heading} said={said} code={code}>
      <Verb onClick={() => void book.refresh()}>{trans.__('Try again')}</Verb>
      {code && (
        <Link onClick={() => actions.makeProject(book.folder)}>
          {trans.__('Make a project here, with a first notebook')}
        </Link>
      )}
    </Empty>
  );
}
