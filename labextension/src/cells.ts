/**
 * A mark beside each code cell: recorded, failed, stale, unseeded, redacted. It stands in the page and never in the
 * document, so that nobody else's notebook changes by it.
 */
import type { Cell } from '@jupyterlab/cells';
import type { NotebookPanel } from '@jupyterlab/notebook';
import type { TranslationBundle } from '@jupyterlab/translation';
import { IDisposable } from '@lumino/disposable';
import { Throttler } from '@lumino/polling';

import type { Book } from './model';
import { Finding, Row } from './records';
import { clean, duration, finding, mark, moment, state } from './words';

const CLASS = 'jp-mlops-marks';
const TELLING = new Set(['stale', 'built', 'order', 'edited', 'hidden']);

export class CellMarks implements IDisposable {
  constructor(
    private panel: NotebookPanel,
    private book: Book,
    private trans: TranslationBundle,
    private open: (id: string) => void
  ) {
    this.throttler = new Throttler(() => this.draw(), 100);
    book.changed.connect(this.request, this);
    panel.content.modelContentChanged.connect(this.request, this);
    panel.content.disposed.connect(this.dispose, this);
    this.request();
  }

  /** Whether marks are shown. */
  set enabled(enabled: boolean) {
    this._enabled = enabled;
    this.request();
  }

  get isDisposed(): boolean {
    return this._isDisposed;
  }

  dispose(): void {
    if (this._isDisposed) {
      return;
    }
    this._isDisposed = true;
    this.throttler.dispose();
    this.book.changed.disconnect(this.request, this);
    this.panel.content.modelContentChanged.disconnect(this.request, this);
    this.panel.content.disposed.disconnect(this.dispose, this);
  }

  private request(): void {
    if (!this._isDisposed) {
      void this.throttler.invoke();
    }
  }

  private draw(): void {
    if (this._isDisposed || this.panel.isDisposed) {
      return;
    }
    for (const cell of this.panel.content.widgets) {
      const row =
        this._enabled && cell.model.type === 'code'
          ? this.book.cells.get(cell.model.id)
          : undefined;
      const found = this.book.findings.get(cell.model.id) ?? [];
      this.drawCell(cell, row, found);
    }
  }

  private drawCell(cell: Cell, row: Row | undefined, found: Finding[]): void {
    let node = cell.node.querySelector<HTMLElement>(`:scope > .${CLASS}`);
    if (!row) {
      node?.remove();
      return;
    }
    const input = cell.node.querySelector(':scope > .jp-Cell-inputWrapper');
    if (!input) {
      void cell.ready.then(() => this.request()); // far from what is looked at, a cell has no content yet
      return;
    }
    const chips = this.chips(row, found);
    const key = JSON.stringify([row.id, row.status, row.seconds, chips]);
    if (node && node.dataset.key === key && node.previousElementSibling === input) {
      return;
    }
    if (!node) {
      node = document.createElement('div');
      node.className = CLASS;
    }
    node.dataset.key = key;
    node.replaceChildren(
      ...chips.map(([word, meaning, kind]) => this.chip(row, word, meaning, kind))
    );
    input.after(node);
  }

  /** Words, what they mean, and what they are about; the first says that it is on record, and how it ended. */
  private chips(row: Row, found: Finding[]): [string, string, string][] {
    const { trans } = this;
    const ended = row.status === 'running' ? '' : trans.__(', took %1', duration(row.seconds));
    const first = row.status === 'done' ? trans.__('recorded') : state(row.status, trans);
    const about = trans.__('Cell run of %1%2', moment(row.time), ended);
    const chips: [string, string, string][] = [
      [first, row.error ? `${about}\n${clean(row.error)}` : about, row.status]
    ];
    const reasons = new Map<string, string[]>();
    for (const one of found) {
      if (TELLING.has(one.kind)) {
        reasons.set(one.kind, [...(reasons.get(one.kind) ?? []), clean(one.reason)]);
      }
    }
    for (const [kind, why] of reasons) {
      chips.push([finding(kind, trans), why.join('\n'), 'stale']);
    }
    for (const name of row.marks) {
      const [word, meaning] = mark(name, trans);
      if (name !== 'gap') {
        chips.push([word, meaning, name]);
      }
    }
    return chips;
  }

  private chip(row: Row, word: string, meaning: string, kind: string): HTMLElement {
    const node = document.createElement('button');
    node.type = 'button';
    node.className = `jp-mlops-mark jp-mod-${kind}`;
    node.textContent = word;
    node.title = meaning;
    node.tabIndex = -1; // a notebook's cells are walked with the arrow keys: the list beside it has all of this
    node.onclick = () => this.open(row.id);
    return node;
  }

  private throttler: Throttler;
  private _enabled = true;
  private _isDisposed = false;
}
