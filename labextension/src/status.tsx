/** The item of the status bar: whether the current notebook is recorded, and whether it would do again what it did. */
import { VDomModel, VDomRenderer } from '@jupyterlab/apputils';
import type { TranslationBundle } from '@jupyterlab/translation';
import * as React from 'react';

import type { Book } from './model';
import { recording } from './panel';

export class StatusModel extends VDomModel {
  get book(): Book | null {
    return this._book;
  }

  set book(book: Book | null) {
    if (book !== this._book) {
      if (this._book && !this._book.isDisposed) {
        this._book.changed.disconnect(this.onChanged, this);
      }
      this._book = book;
      book?.changed.connect(this.onChanged, this);
      this.stateChanged.emit();
    }
  }

  private onChanged(): void {
    this.stateChanged.emit();
  }

  private _book: Book | null = null;
}

export class StatusItem extends VDomRenderer<StatusModel> {
  constructor(
    model: StatusModel,
    private trans: TranslationBundle,
    private open: () => void
  ) {
    super(model);
    this.addClass('jp-mlops-status');
  }

  protected override render(): JSX.Element | null {
    const book = this.model.book;
    if (!book) {
      return null;
    }
    const { trans } = this;
    const parts = [trans.__('Record: %1', recording(book, trans))];
    let title = trans.__('Show what is on record of this notebook');
    const standing = book.standing;
    if (standing && standing.ran > 0) {
      const now = book.link.hello?.run != null;
      if (standing.reproduces === 'yes') {
        parts.push(trans.__('reproduces'));
        title = now
          ? trans.__('Run from the top, this notebook as saved makes what is in memory.')
          : trans.__(
              'Run from the top, this notebook as saved makes what its last session on record made.'
            );
      } else if (standing.reproduces === 'no') {
        parts.push(trans.__('would not reproduce'));
        const reasons = trans._n(
          '%1 reason, beside its cell.',
          '%1 reasons, beside the cells.',
          standing.findings.filter(one => one.answer === 'no').length
        );
        title = now
          ? trans.__(
              'Run from the top, this notebook as saved would not make what is in memory: %1',
              reasons
            )
          : trans.__(
              'Run from the top, this notebook as saved would not make what its last session on record made: %1',
              reasons
            );
      }
    }
    return (
      <button className="jp-mlops-status-button" title={title} onClick={this.open}>
        {parts.join(' · ')}
      </button>
    );
  }
}
