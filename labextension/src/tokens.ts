/** Names that other modules, and other extensions, know us by. */
import { Token } from '@lumino/coreutils';

import type { Book } from './model';

export const NAMESPACE = 'jupyter_mlops';

/** The open notebooks, each with what is on record of it. */
export interface IRecord {
  /** What is known of an open notebook; null for a widget that is none. */
  of(widget: object | null): Book | null;
}

export const IRecord = new Token<IRecord>(
  'jupyter-mlops:IRecord',
  'What is on record of each open notebook.'
);

export namespace CommandIDs {
  export const open = 'jupyter-mlops:open';
  export const showCell = 'jupyter-mlops:show-cell';
  export const refresh = 'jupyter-mlops:refresh';
  export const toggleMarks = 'jupyter-mlops:toggle-marks';
  export const run = 'jupyter-mlops:run';
  export const newProject = 'jupyter-mlops:new-project';
}
