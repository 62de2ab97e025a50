/** The side panel: which notebook, whether it is recorded, and what is on record of it. */
import { ReactWidget } from '@jupyterlab/apputils';
import type { NotebookPanel } from '@jupyterlab/notebook';
import type { TranslationBundle } from '@jupyterlab/translation';
import { Message } from '@lumino/messaging';
import * as React from 'react';

import type { Book } from './model';
import { Timeline } from './timeline';
import { clean, refusal } from './words';

export interface IShown {
  book: Book;
  notebook: NotebookPanel;
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
    // What is to have the focus may have to be drawn first.
    void (this.renderPromise ?? Promise.resolve()).then(() => {
      requestAnimationFrame(() => {
        this.node.querySelector<HTMLElement>('input[type=search], button')?.focus();
      });
    });
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
      />
    );
  }

  private _shown: IShown | null = null;
  private wanted: { id: string; turn: number } | null = null;
}

interface IShownProps extends IShown {
  trans: TranslationBundle;
  jump: (notebook: NotebookPanel, cell: string) => void;
  wanted: { id: string; turn: number } | null;
}

function Shown({ book, notebook, trans, jump, wanted }: IShownProps): JSX.Element {
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
        <Timeline
          book={book}
          trans={trans}
          jump={cell => jump(notebook, cell)}
          has={cell => ids.has(cell)}
          wanted={wanted}
        />
      )}
    </>
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
