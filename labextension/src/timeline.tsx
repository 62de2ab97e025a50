/** The cell runs of a notebook: a list of which only the visible rows exist, and the details of one. Props in, callbacks out. */
import type { TranslationBundle } from '@jupyterlab/translation';
import * as React from 'react';

import { useRecord } from './asking';
import { Detail } from './detail';
import { Body, Head, IRows, Link, Pane, Plain, Search, Select, useRows } from './controls';
import { Difference } from './difference';
import { Empty, Notice, Sign, Waiting } from './parts';
import { CellDetail, Row } from './records';
import type { ITab, ITabProps } from './tabs';
import { clean, duration, flat, mark, moment, origin, short, state, when } from './words';
import { Written } from './written';

const ROW = 48;

export const timeline: ITab = {
  name: 'timeline',
  label: trans => trans.__('Timeline'),
  body: Timeline
};

/** A cell run that another one is chosen for, to compare the two. */
interface IPinned {
  id: string;
  time: string;
}

function Timeline(props: ITabProps): JSX.Element {
  const { book, trans } = props;
  const [search, setSearch] = React.useState(book.list.filter.search);
  const [status, setStatus] = React.useState(book.list.filter.status);
  const [selected, setSelected] = React.useState<string | null>(null);
  /** The cell run that another one is chosen for, to compare them; and two that are compared, the older first. */
  const [pinned, setPinned] = React.useState<IPinned | null>(null);
  const [pair, setPair] = React.useState<[string, string] | null>(null);
  const [said, setSaid] = React.useState('');
  const list = React.useRef<HTMLDivElement>(null);
  const toList = () => list.current?.querySelector<HTMLElement>('[role=listbox]')?.focus();
  const choose = (id: string | null, time = '') => {
    setSaid('');
    if (pinned !== null && id !== null && id !== pinned.id) {
      setPair(time && time < pinned.time ? [id, pinned.id] : [pinned.id, id]);
      setPinned(null);
    } else {
      setPair(null);
    }
    setSelected(id);
  };
  const before = async (id: string) => {
    const found = await book.before(id);
    setSaid(found ? '' : trans.__('Its cell has not run before on record.'));
    if (found) {
      setPair([found, id]);
    }
  };

  React.useEffect(() => {
    if (search === book.list.filter.search && status === book.list.filter.status) {
      return undefined;
    }
    const timer = setTimeout(() => book.list.setFilter({ search, status }), 200);
    return () => clearTimeout(timer);
  }, [book, search, status]);

  React.useEffect(() => {
    if (props.wanted) {
      setPinned(null);
      setPair(null);
      setSelected(props.wanted.what);
    }
  }, [props.wanted]);

  /** There is nothing yet, and nothing comes by itself. */
  const bare =
    book.list.known &&
    book.list.length === 0 &&
    !book.list.filtered &&
    !book.list.more &&
    !book.link.silent &&
    book.link.hello?.recording !== true;
  const count = book.list.filtered
    ? book.list.more || book.list.busy
      ? trans.__('searching…')
      : trans._n('%1 found', '%1 found', book.list.length)
    : trans._n('%1 cell run', '%1 cell runs', book.list.length);
  return (
    <div ref={list} className="jp-mlops-whole">
      <Search
        label={trans.__('Search cell runs')}
        hint={trans.__('Search code, names, metrics, files')}
        value={search}
        choose={setSearch}
      />
      <div className="jp-mlops-count">
        <span role="status">
          {book.list.known || book.list.length ? count : trans.__('Loading…')}
        </span>
        <Select
          label={trans.__('Show cell runs by state')}
          value={status}
          choose={setStatus}
          options={[
            ['', trans.__('All states')],
            ['done', trans.__('Done')],
            ['error,syntax', trans.__('Failed')],
            ['interrupted', trans.__('Interrupted')],
            ['running', trans.__('Running')]
          ]}
        />
      </div>
      <Notice problem={book.list.problem} trans={trans} />
      {pinned && (
        <Notice>
          {trans.__('Choose the cell run to compare %1 with.', short(pinned.id))}{' '}
          <Link onClick={() => setPinned(null)}>{trans.__('Do not compare')}</Link>
        </Notice>
      )}
      {said && <Notice>{said}</Notice>}
      {bare ? (
        <Empty
          heading={trans.__('No cell of this notebook has run on record yet')}
          said={[trans.__('Run this in a cell, and every cell run after it is on record:')]}
          code={book.link.hello ? '%mlops on' : '%load_ext jupyter_mlops'}
        />
      ) : (
        <List
          {...props}
          selected={selected}
          select={row => choose(row?.id ?? null, row?.time)}
          narrowed={search !== '' || status !== ''}
        />
      )}
      {pair ? (
        <Compared
          key={pair.join()}
          {...props}
          old={pair[0]}
          new_={pair[1]}
          close={() => {
            setPair(null);
            toList();
          }}
        />
      ) : (
        selected && (
          <Details
            key={selected}
            {...props}
            id={selected}
            close={() => {
              setSelected(null);
              toList();
            }}
            select={id => choose(id)}
            compare={time => {
              setPinned({ id: selected, time });
              toList();
            }}
            before={() => void before(selected)}
          />
        )
      )}
    </div>
  );
}

interface IListProps extends ITabProps {
  selected: string | null;
  select: (row: Row | null) => void;
  narrowed: boolean;
}

function List(props: IListProps): JSX.Element {
  const { book, trans } = props;
  const list = book.list;
  const length = list.length;
  const rowsAt: IRows = useRows(length, ROW, 0, (key, place) => {
    const row = list.at(place);
    if ((key === 'Enter' || key === ' ') && row) {
      props.select(row);
    } else if (key === 'Escape') {
      props.select(null);
    } else {
      return false;
    }
    return true;
  });
  const { first, last, active, setActive } = rowsAt;
  React.useEffect(() => {
    if (last >= first) {
      list.ensure(first, last);
    }
  });

  const rows: JSX.Element[] = [];
  for (let place = first; place <= last; place++) {
    const row = list.at(place);
    rows.push(
      <div
        key={place}
        id={`jp-mlops-row-${place}`}
        role="option"
        aria-selected={row !== null && row.id === props.selected}
        aria-posinset={place + 1}
        aria-setsize={length}
        className={`jp-mlops-row${place === active ? ' jp-mod-active' : ''}`}
        style={{ top: place * ROW, height: ROW }}
        onClick={() => {
          setActive(place);
          if (row) {
            props.select(row);
          }
        }}
        onDoubleClick={() => row && props.has(row.cell) && props.jump(row.cell)}
      >
        {row ? (
          <RowBody row={row} trans={trans} here={!row.cell || props.has(row.cell)} />
        ) : (
          trans.__('Loading…')
        )}
      </div>
    );
  }
  return (
    <div
      {...rowsAt.box}
      className="jp-mlops-list"
      role="listbox"
      aria-label={trans.__('Cell runs, newest first')}
      aria-activedescendant={rowsAt.there === null ? undefined : `jp-mlops-row-${rowsAt.there}`}
    >
      {length > 0 ? (
        <div className="jp-mlops-tall" role="presentation" style={{ height: length * ROW }}>
          {rows}
        </div>
      ) : (
        list.known &&
        !list.more && (
          <div role="option" aria-selected="false" aria-disabled="true" className="jp-mlops-none">
            {props.narrowed
              ? trans.__('No cell run is like that.')
              : trans.__('No cell of this notebook has run on record yet.')}
          </div>
        )
      )}
    </div>
  );
}

function RowBody({
  row,
  trans,
  here
}: {
  row: Row;
  trans: TranslationBundle;
  here: boolean;
}): JSX.Element {
  const metrics = Object.entries(row.metrics ?? {});
  const facts: string[] = [];
  if (row.error) {
    facts.push(clean(row.error));
  }
  if (metrics.length) {
    facts.push(metrics.map(([key, value]) => `${clean(key)} ${flat(value)}`).join(', '));
  }
  if (row.made.length && !row.error) {
    const more = row.made_count - row.made.length;
    facts.push('→ ' + row.made.map(clean).join(', ') + (more > 0 ? ` +${more}` : ''));
  }
  const how = row.trigger && row.trigger !== 'session' ? origin(row.trigger, trans) : '';
  return (
    <>
      <Sign status={row.status} />
      <span className="jp-mlops-count-of">{row.count ? `[${row.count}]` : ''}</span>
      <span className="jp-mlops-title" title={clean(row.title)}>
        {row.label ? <b>{clean(row.label)} </b> : null}
        {clean(row.title) || trans.__('(no code on record)')}
      </span>
      <span className="jp-mlops-time" title={moment(row.time)}>
        {when(row.time)}
      </span>
      <span className="jp-mlops-facts">
        <span className="jp-mlops-word">{state(row.status, trans)}</span>
        {row.status === 'running' ? null : <span>{duration(row.seconds)}</span>}
        {how && <span className="jp-mlops-chip">{how}</span>}
        {!here && <span className="jp-mlops-chip">{trans.__('cell is gone')}</span>}
        {row.marks.map(name => {
          const [word, meaning] = mark(name, trans);
          return (
            <span key={name} className="jp-mlops-chip" title={meaning}>
              {word}
            </span>
          );
        })}
        <span className="jp-mlops-more">{facts.join(' · ')}</span>
      </span>
    </>
  );
}

interface IDetailsProps extends ITabProps {
  id: string;
  close: () => void;
  select: (id: string) => void;
  compare: (time: string) => void;
  before: () => void;
}

/** Fetches the details of a cell run, again when it has gone on. */
function Details(props: IDetailsProps): JSX.Element {
  const { book, trans, id } = props;
  const [cell, setCell] = React.useState<CellDetail | null>(null);
  const over = cell !== null && cell.row.status !== 'running';
  const [found, problem] = useRecord(over ? '' : book.overview?.mark, () => book.detail(id), [
    book,
    id
  ]);
  React.useEffect(() => setCell(found), [found]);
  const [act, setAct] = React.useState<'slice' | 'checkout' | null>(null);
  const head = React.useRef<HTMLDivElement>(null);
  const close = () => {
    setAct(null);
    head.current?.querySelector<HTMLElement>('.jp-mlops-detail-body')?.focus();
  };
  return (
    <Pane
      label={trans.__('Details of a cell run')}
      grip={trans.__('Height of the details')}
      close={props.close}
    >
      {cell ? (
        <div ref={head} className="jp-mlops-whole">
          <Detail
            {...props}
            cell={cell}
            trace={of => props.go('lineage', of)}
            compare={() => props.compare(cell.row.time)}
            ask={setAct}
            asked={act && <Written {...props} key={act} act={act} cell={cell} close={close} />}
          />
        </div>
      ) : (
        <Waiting
          problem={problem}
          trans={trans}
          said={
            problem?.kind === 'NotFound'
              ? trans.__('It is not on record where this server looks yet.')
              : ''
          }
        >
          <Plain onClick={props.close}>{trans.__('Close')}</Plain>
        </Waiting>
      )}
    </Pane>
  );
}

interface IComparedProps extends ITabProps {
  old: string;
  new_: string;
  close: () => void;
}

/** What is different between two cell runs. */
function Compared(props: IComparedProps): JSX.Element {
  const { book, trans, old, new_ } = props;
  const [found, problem] = useRecord('', () => book.client.difference(book.path, old, new_), [
    book,
    old,
    new_
  ]);
  return (
    <Pane
      label={trans.__('What is different between two cell runs')}
      grip={trans.__('Height of the comparison')}
      close={props.close}
    >
      <Head
        title={trans.__('What is different')}
        close={{ label: trans.__('Close the comparison'), go: props.close }}
      />
      <Body label={trans.__('What is different')}>
        {found ? (
          <Difference found={found} trans={trans} />
        ) : (
          <Waiting problem={problem} trans={trans} />
        )}
      </Body>
    </Pane>
  );
}
