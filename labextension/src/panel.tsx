/** The side panel: which notebook, whether it is recorded, and what is on record of it. */
import { ReactWidget } from '@jupyterlab/apputils';
import type { NotebookPanel } from '@jupyterlab/notebook';
import type { TranslationBundle } from '@jupyterlab/translation';
import { Message } from '@lumino/messaging';
import { ISignal, Signal } from '@lumino/signaling';
import * as React from 'react';

import type { Book } from './model';
import { Models } from './models';
import { Timeline } from './timeline';
import { clean, refusal } from './words';

export interface IShown {
  book: Book;
  notebook: NotebookPanel;
}

export type Tab = 'timeline' | 'models';

/** A cell run to select, and a number that makes it another wish than before. */
interface IWanted {
  id: string;
  turn: number;
}

export class RecordPanel extends ReactWidget {
  constructor(
    private trans: TranslationBundle,
    private jump: (notebook: NotebookPanel, cell: string) => void
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

  /** Show the details of a cell run. */
  select(id: string): void {
    this.tab = 'timeline';
    this.wanted = { id, turn: (this.wanted?.turn ?? 0) + 1 };
    this.update();
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
  get tab(): Tab {
    return this._tab;
  }

  set tab(tab: Tab) {
    if (tab !== this._tab) {
      this._tab = tab;
      this._tabChanged.emit(tab);
      this.update();
    }
  }

  get tabChanged(): ISignal<this, Tab> {
    return this._tabChanged;
  }

  protected override render(): JSX.Element {
    const { trans, _shown: shown } = this;
    if (!shown) {
      return (
        <Empty
          heading={trans.__('No notebook is open')}
          text={trans.__('Open one to see what is on record of it.')}
        />
      );
    }
    return (
      <Shown
        key={shown.notebook.id}
        {...shown}
        trans={trans}
        jump={this.jump}
        wanted={this.wanted}
        tab={this._tab}
        setTab={tab => {
          this.wanted = null;
          this.tab = tab;
        }}
        select={id => this.select(id)}
      />
    );
  }

  private _shown: IShown | null = null;
  private _tab: Tab = 'timeline';
  private _tabChanged = new Signal<this, Tab>(this);
  private wanted: IWanted | null = null;
}

interface IShownProps extends IShown {
  trans: TranslationBundle;
  jump: (notebook: NotebookPanel, cell: string) => void;
  wanted: IWanted | null;
  tab: Tab;
  setTab: (tab: Tab) => void;
  select: (id: string) => void;
}

function Shown(props: IShownProps): JSX.Element {
  const { book, notebook, trans, jump, wanted, tab } = props;
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
        <Problem book={book} trans={trans} />
      ) : (
        <>
          <Tabs {...props} />
          <div
            className="jp-mlops-tab-body"
            role="tabpanel"
            id="jp-mlops-tab-body"
            aria-labelledby={`jp-mlops-tab-${tab}`}
          >
            {tab === 'timeline' ? (
              <Timeline
                book={book}
                trans={trans}
                jump={cell => jump(notebook, cell)}
                has={cell => ids.has(cell)}
                wanted={wanted}
              />
            ) : (
              <Models book={book} trans={trans} show={props.select} />
            )}
          </div>
        </>
      )}
    </>
  );
}

function Tabs({ trans, tab, setTab }: IShownProps): JSX.Element {
  const tabs: [Tab, string][] = [
    ['timeline', trans.__('Timeline')],
    ['models', trans.__('Models')]
  ];
  const onKeyDown = (event: React.KeyboardEvent<HTMLElement>) => {
    const step = event.key === 'ArrowRight' ? 1 : event.key === 'ArrowLeft' ? -1 : 0;
    if (step) {
      event.preventDefault();
      const at = tabs.findIndex(([name]) => name === tab);
      const to = tabs[(at + step + tabs.length) % tabs.length][0];
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
      {tabs.map(([name, label]) => (
        <button
          key={name}
          id={`jp-mlops-tab-${name}`}
          role="tab"
          aria-selected={name === tab}
          aria-controls="jp-mlops-tab-body"
          tabIndex={name === tab ? 0 : -1}
          onClick={() => setTab(name)}
        >
          {label}
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
      : trans.__('paused')
    : trans.__('not recording');
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
  if (book.split === 'store') {
    said.push(
      trans.__(
        'This kernel records in another store than the one this server reads here: of it, only what happens now is shown.'
      )
    );
  }
  if (banner && book.problem) {
    said.push(
      refusal(book.problem, trans)
        .filter(part => part)
        .join(' ')
    );
  }
  said.push(...(book.overview?.problems ?? []).map(clean));
  return (
    <>
      {said.map((text, at) => (
        <div key={at} className="jp-mlops-problem" role="alert">
          {text}
        </div>
      ))}
    </>
  );
}

function Problem({ book, trans }: { book: Book; trans: TranslationBundle }): JSX.Element {
  const problem = book.problem;
  if (!problem) {
    return <Empty heading={trans.__('Loading…')} text="" />;
  }
  const [heading, text, next] = refusal(problem, trans);
  const code = problem.kind === 'ProjectMissing' ? '%load_ext jupyter_mlops' : '';
  return (
    <Empty heading={heading} text={text} code={code} next={next}>
      <button className="jp-mod-styled" onClick={() => void book.refresh()}>
        {trans.__('Try again')}
      </button>
    </Empty>
  );
}

interface IEmptyProps {
  heading: string;
  text: string;
  code?: string;
  next?: string;
  children?: React.ReactNode;
}

export function Empty(props: IEmptyProps): JSX.Element {
  return (
    <div className="jp-mlops-empty" role="status">
      <h2>{props.heading}</h2>
      {props.text && <p>{props.text}</p>}
      {props.code && <code>{props.code}</code>}
      {props.next && <p>{props.next}</p>}
      {props.children}
    </div>
  );
}
