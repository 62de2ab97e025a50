/** Where a value, metric, file or model comes from: what is asked for, its graph, and what is chosen in it. */
import type { TranslationBundle } from '@jupyterlab/translation';
import * as React from 'react';

import { useKept, useRecord } from './asking';
import { Body, Head, Link, Plain, SignButton, Verb } from './controls';
import { Graph } from './graph';
import { about, kindOf } from './nodes';
import { Empty, Waiting } from './parts';
import { LineageNode, Name } from './records';
import type { ITab, ITabProps } from './tabs';
import { clean, joined, refusal, short } from './words';

/** Names that are offered at once. */
const OFFERED = 40;

export const lineage: ITab = {
  name: 'lineage',
  label: trans => trans.__('Lineage'),
  body: LineageTab
};

function LineageTab(props: ITabProps): JSX.Element {
  const { book, trans, wanted } = props;
  const [trail, setTrail] = useKept<string[]>(book, 'lineage', []);
  const [turn, setTurn] = React.useState(0);
  const [asked, setAsked] = React.useState(0);
  const of = trail.length ? trail[trail.length - 1] : '';
  const ask = (what: string) => {
    if (what && what !== of) {
      setTrail([...trail.slice(-20), what]);
    }
    setTurn(turn + 1);
  };
  React.useEffect(() => {
    if (wanted) {
      ask(wanted.what);
    }
  }, [wanted]);
  const mark = of ? '' : book.overview?.mark;
  const [names] = useRecord(mark, () => book.client.names(book.path), [book, book.path, asked]);
  return (
    <div className="jp-mlops-whole">
      <Choice
        trans={trans}
        names={names?.names ?? []}
        looked={() => setAsked(asked + 1)}
        choose={ask}
      />
      {of ? (
        <Found
          key={`${of}\n${turn}`}
          {...props}
          of={of}
          follow={ask}
          back={trail.length > 1 ? () => setTrail(trail.slice(0, -1)) : null}
        />
      ) : (
        <Offer trans={trans} names={names?.names ?? null} choose={ask} />
      )}
    </div>
  );
}

/** What a name is, in a word. */
function nameKind(kind: string, trans: TranslationBundle): string {
  return kind === 'variable' ? trans.__('variable') : kindOf(kind, trans);
}

interface IChoiceProps {
  trans: TranslationBundle;
  names: Name[];
  /** It is looked at: what it offers should be of now. */
  looked: () => void;
  choose: (of: string) => void;
}

/** A field that offers what there is. */
function Choice({ trans, names, looked, choose }: IChoiceProps): JSX.Element {
  const [text, setText] = React.useState('');
  const [open, setOpen] = React.useState(false);
  const [at, setAt] = React.useState(-1);
  const list = React.useRef<HTMLUListElement>(null);
  const words = text.toLowerCase().split(/\s+/).filter(Boolean);
  const offered = names
    .filter(one => {
      const known = `${one.name} ${one.kind} ${one.detail}`.toLowerCase();
      return words.every(word => known.includes(word));
    })
    .slice(0, OFFERED);
  const take = (name: Name | undefined) => {
    const same = names.find(one => one.name === text.trim());
    const of = (name ?? same)?.of ?? text.trim();
    if (of) {
      setText((name ?? same)?.name ?? text);
      setOpen(false);
      setAt(-1);
      choose(of);
    }
  };
  const onKeyDown = (event: React.KeyboardEvent) => {
    if (event.key === 'ArrowDown' || event.key === 'ArrowUp') {
      const next = open ? at + (event.key === 'ArrowDown' ? 1 : -1) : 0;
      const to = Math.max(-1, Math.min(offered.length - 1, next));
      setOpen(true);
      setAt(to);
      list.current?.children[to]?.scrollIntoView({ block: 'nearest' });
    } else if (event.key === 'Enter') {
      take(open ? offered[at] : undefined);
    } else if (event.key === 'Escape' && open) {
      setOpen(false);
      setAt(-1);
    } else {
      return;
    }
    event.preventDefault();
    event.stopPropagation();
  };
  return (
    <div className="jp-mlops-filter jp-mlops-seek">
      <input
        className="jp-mod-styled"
        type="search"
        role="combobox"
        placeholder={trans.__('What to trace back')}
        aria-label={trans.__('Show the lineage of')}
        aria-expanded={open && offered.length > 0}
        aria-controls="jp-mlops-offered"
        aria-autocomplete="list"
        aria-activedescendant={open && at >= 0 ? `jp-mlops-offered-${at}` : undefined}
        autoComplete="off"
        spellCheck={false}
        value={text}
        onFocus={looked}
        onClick={() => setOpen(true)}
        onBlur={() => setOpen(false)}
        onChange={event => {
          setText(event.target.value);
          setOpen(true);
          setAt(-1);
        }}
        onKeyDown={onKeyDown}
      />
      <ul
        ref={list}
        id="jp-mlops-offered"
        className="jp-mlops-offered"
        role="listbox"
        aria-label={trans.__('What there is')}
        hidden={!open || offered.length === 0}
        onMouseDown={event => event.preventDefault()}
      >
        {open &&
          offered.map((one, number) => (
            <li
              key={`${one.kind}:${one.name}`}
              id={`jp-mlops-offered-${number}`}
              role="option"
              aria-selected={number === at}
              onClick={() => take(one)}
            >
              <span className="jp-mlops-name">{clean(one.name)}</span>
              <span className="jp-mlops-dim">
                {joined([nameKind(one.kind, trans), clean(one.detail)], ' · ')}
              </span>
            </li>
          ))}
      </ul>
    </div>
  );
}

interface IOfferProps {
  trans: TranslationBundle;
  names: Name[] | null;
  choose: (of: string) => void;
}

/** What can be asked for, while nothing is. */
function Offer({ trans, names, choose }: IOfferProps): JSX.Element {
  if (!names) {
    return <Waiting trans={trans} />;
  }
  if (!names.length) {
    return (
      <Empty
        heading={trans.__('Nothing was made yet')}
        said={[
          trans.__('What cells make, log and write while they are recorded can be traced back.')
        ]}
      />
    );
  }
  const kinds = ['model', 'metric', 'variable', 'file'].filter(kind =>
    names.some(one => one.kind === kind)
  );
  const title: Record<string, string> = {
    model: trans.__('Models'),
    metric: trans.__('Metrics'),
    variable: trans.__('Variables'),
    file: trans.__('Files')
  };
  return (
    <Body label={trans.__('What can be traced back')}>
      <p>
        {trans.__(
          'Where does it come from? Choose what to trace back to cells, data, packages and commit.'
        )}
      </p>
      {kinds.map(kind => (
        <section key={kind} aria-label={title[kind]}>
          <h3 className="jp-mlops-heading">{title[kind]}</h3>
          <div className="jp-mlops-chips">
            {names
              .filter(one => one.kind === kind)
              .slice(0, 24)
              .map(one => (
                <button
                  key={one.name}
                  className="jp-mlops-chip jp-mlops-chosen"
                  title={clean(one.detail)}
                  onClick={() => choose(one.of)}
                >
                  {clean(one.name)}
                </button>
              ))}
          </div>
        </section>
      ))}
    </Body>
  );
}

export interface IFoundProps extends Pick<ITabProps, 'book' | 'trans' | 'go' | 'enlarge'> {
  of: string;
  follow: (of: string) => void;
  back: (() => void) | null;
}

/** The lineage of one thing. */
export function Found(props: IFoundProps): JSX.Element {
  const { book, trans, of } = props;
  const [found, problem] = useRecord(undefined, () => book.client.lineage(book.path, of), [
    book,
    book.path,
    of
  ]);
  const [active, setActive] = React.useState<string | null>(null);
  const [folded, setFolded] = React.useState<ReadonlySet<string>>(new Set());
  const [listed, setListed] = useKept(book, 'lineage listed', false);
  if (!found) {
    if (!problem) {
      return <Waiting trans={trans} />;
    }
    const [heading, ...said] = refusal(problem, trans);
    return (
      <Empty heading={heading} said={said}>
        {props.back && <Verb onClick={props.back}>{trans.__('Back')}</Verb>}
      </Empty>
    );
  }
  const chosen = active ?? found.root;
  const node = found.nodes.find(one => one.id === chosen) ?? found.nodes[0];
  const fold = (id: string) => {
    const next = new Set(folded);
    if (!next.delete(id)) {
      next.add(id);
    }
    setFolded(next);
  };
  const open = (one: LineageNode) => {
    if (one.kind === 'beyond') {
      props.follow(one.id);
    } else if (one.cell_run) {
      props.go('timeline', one.cell_run);
    }
  };
  return (
    <>
      <Head
        title={clean(found.title)}
        back={props.back && { label: trans.__('Back to what was shown before'), go: props.back }}
      >
        <Plain
          aria-pressed={listed}
          title={trans.__('Show it as a list of lines')}
          onClick={() => setListed(!listed)}
        >
          {trans.__('List')}
        </Plain>
        {props.enlarge && (
          <SignButton
            sign="↗"
            label={trans.__('Open in a tab')}
            title={trans.__('Open it in a tab of its own, where there is more room')}
            go={() => props.enlarge?.(of, found.title)}
          />
        )}
      </Head>
      {(found.beyond > 0 || found.outside) && (
        <div className="jp-mlops-aside" role="note">
          {found.outside
            ? trans.__(
                'No cell run on record made it: it comes from outside. Below it is what read it.'
              )
            : trans.__(
                'The nearest %1 cell runs are shown; “further back” leads on to what they build on.',
                found.cell_runs
              )}
        </div>
      )}
      <Graph
        lineage={found}
        trans={trans}
        active={node.id}
        setActive={setActive}
        folded={folded}
        fold={fold}
        open={open}
        listed={listed}
      />
      <Chosen {...props} node={node} folded={folded} fold={fold} open={open} edges={found.edges} />
    </>
  );
}

interface IChosenProps extends IFoundProps {
  node: LineageNode;
  edges: { source: string; target: string }[];
  folded: ReadonlySet<string>;
  fold: (id: string) => void;
  open: (node: LineageNode) => void;
}

/** The node that is chosen, in words, and what can be done with it. */
function Chosen(props: IChosenProps): JSX.Element {
  const { trans, node, folded } = props;
  const at = node.cell_run ? node.cell_run.slice(node.cell_run.indexOf(':') + 1) : '';
  const named = node.kind === 'value' || node.kind === 'file' || node.kind === 'metric';
  const of = named && at ? `${node.label}@${at}` : node.kind === 'cell' ? node.id : '';
  return (
    <div className="jp-mlops-chosen-node" role="group" aria-label={trans.__('The chosen node')}>
      <div role="status">
        <b className="jp-mlops-name">{clean(node.label)}</b>{' '}
        <span className="jp-mlops-dim">{about(node, trans)}</span>
      </div>
      <div className="jp-mlops-chips">
        {node.cell_run && node.kind !== 'beyond' && node.kind !== 'missing' && (
          <Link onClick={() => props.open(node)}>
            {node.kind === 'cell'
              ? trans.__('Details')
              : trans.__('Cell run %1', short(node.cell_run))}
          </Link>
        )}
        {node.kind === 'beyond' && (
          <Link onClick={() => props.open(node)}>{trans.__('Follow from here')}</Link>
        )}
        {of && of !== props.of && (
          <Link onClick={() => props.follow(of)}>{trans.__('Lineage of this')}</Link>
        )}
        {props.edges.some(edge => edge.target === node.id) && (
          <Link onClick={() => props.fold(node.id)}>
            {folded.has(node.id) ? trans.__('Unfold') : trans.__('Fold')}
          </Link>
        )}
      </div>
    </div>
  );
}
