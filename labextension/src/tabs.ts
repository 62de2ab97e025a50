/** What a tab of the side panel is, and what it is given. Each is a file of its own; the panel has the list. */
import type { TranslationBundle } from '@jupyterlab/translation';

import type { Book } from './model';

/** Something that a tab is to show, and a number that makes it another wish than the one before. */
export interface IWanted {
  what: string;
  turn: number;
}

export interface ITabProps {
  book: Book;
  trans: TranslationBundle;
  /** Go to a cell of the notebook. */
  jump: (cell: string) => void;
  /** Whether the notebook has a cell. */
  has: (cell: string) => boolean;
  /** Open a file of the server, such as the notebook that a run left. */
  openFile: (path: string) => void;
  /** What this tab was asked to show by another one. */
  wanted: IWanted | null;
  /** Show something in another tab: `go('timeline', cellRun)`. */
  go: (tab: string, what: string) => void;
  /** Show the lineage of something where there is more room; null where there is none. */
  enlarge: ((of: string, title: string) => void) | null;
}

export interface ITab {
  /** By which it is known, and remembered. */
  name: string;
  label: (trans: TranslationBundle) => string;
  body: (props: ITabProps) => JSX.Element;
}
