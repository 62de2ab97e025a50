/** A lineage in a tab of the main area, where there is more room for it than in the side bar. */
import { ReactWidget } from '@jupyterlab/apputils';
import type { TranslationBundle } from '@jupyterlab/translation';
import * as React from 'react';

import { Found } from './lineage';
import type { Book } from './model';

interface IPageProps {
  book: Book;
  trans: TranslationBundle;
  /** What it is the lineage of, at first. */
  of: string;
  /** Show something in the side panel. */
  go: (tab: string, what: string) => void;
}

export class LineagePage extends ReactWidget {
  constructor(private props: IPageProps) {
    super();
    this.addClass('jp-mlops-panel');
  }

  protected override render(): JSX.Element {
    return <Page {...this.props} />;
  }
}

function Page(props: IPageProps): JSX.Element {
  const [trail, setTrail] = React.useState([props.of]);
  const of = trail[trail.length - 1];
  return (
    <Found
      key={of}
      {...props}
      of={of}
      follow={next => setTrail([...trail, next])}
      back={trail.length > 1 ? () => setTrail(trail.slice(0, -1)) : null}
      enlarge={null}
    />
  );
}
