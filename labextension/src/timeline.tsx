/** The cell runs of a notebook: a list of which only the visible rows exist, and the details of one. Props in, callbacks out. */
import type { TranslationBundle } from '@jupyterlab/translation';
import * as React from 'react';

import { Refused } from './client';
import { Detail } from './detail';
import { CellDetail, Row } from './records';
import type { ITab, ITabProps } from './tabs';
import { clean, duration, flat, mark, moment, state, when } from './words';

const ROW = 48;
const SPARE = 6;

export const timeline: ITab = {
  name: 'timeline',
  label: trans => trans.__('Timeline'),
  body: Timeline
};

function Timeline(props: ITabProps): JSX.Element {
  const { book, trans } = props;
  const [search, setSearch] = React.useState(book.list.filter.search);
  const [status, setStatus] = React.useState(book.list.filter.status);
  const [selected, setSelected] = React.useState<string | null>(null);
  const [active, setActive] = React.useState(0);

  React.useEffect(() => {
    if (search === book.list.filter.search && status === book.list.filter.status) {
      return undefined;
    }
    const timer = setTimeout(() => book.list.setFilter({ search, status }), 200);
    return () => clearTimeout(timer);
  }, [book, search, status]);

  React.useEffect(() => {
    if (props.wanted) {
      setSelected(props.wanted.what);
    }
  }, [props.wanted]);

  const count = book.list.filtered
    ? book.list.more || book.list.busy
      ? trans.__('searching…')
      : trans._n('%1 found', '%1 found', book.list.length)
    : trans._n('%1 cell run', '%1 cell runs', book.list.length);
  return (
    <div className="jp-mlops-timeline">
      <div className="jp-mlops-filter">
        <input
          className="jp-mod-styled"
          type="search"
          placeholder={trans.__('Search code, names, metrics, files')}
          aria-label={trans.__('Search cell runs')}
          value={search}
          onChange={event => setSearch(event.target.value)}
        />
      </div>
      <div className="jp-mlops-count">
        <span role="status">
          {book.list.known || book.list.length ? count : trans.__('Loading…')}
        </span>
        <select
          aria-label={trans.__('Show cell runs by state')}
          value={status}
          onChange={event => setStatus(event.target.value)}
        >
          <option value="">{trans.__('All states')}</option>
          <option value="done">{trans.__('Done')}</option>
          <option value="error,syntax">{trans.__('Failed')}</option>
          <option value="interrupted">{trans.__('Interrupted')}</option>
          <option value="running">{trans.__('Running')}</option>
        </select>
      </div>
      {book.list.problem && (
        <div className="jp-mlops-problem" role="alert">
          {clean(book.list.problem.message || book.list.problem.kind)}
        </div>
      )}
      <List
        {...props}
        active={active}
        setActive={setActive}
        selected={selected}
        select={row => setSelected(row ? row.id : null)}
        narrowed={search !== '' || status !== ''}
      />
      {selected && (
        <Details
          key={selected}
          {...props}
          id={selected}
          close={() => setSelected(null)}
          select={setSelected}
        />
      )}
    </div>
  );
}

interface IListProps extends ITabProps {
  active: number;
  setActive: (place: number) => void;
  selected: string | null;
  select: (row: Row | null) => void;
  narrowed: boolean;
}

function List(props: IListProps): JSX.Element {
  const { book, trans, active, setActive } = props;
  const list = book.list;
  const box = React.useRef<HTMLDivElement>(null);
  const [top, setTop] = React.useState(0);
  const [height, setHeight] = React.useState(600);

  React.useLayoutEffect(() => {
    const node = box.current;
    if (!node) {
      return undefined;
    }
    const observer = new ResizeObserver(() => setHeight(node.clientHeight));
    observer.observe(node);
    setHeight(node.clientHeight);
    return () => observer.disconnect();
  }, []);

  const length = list.length;
  const first = Math.max(0, Math.floor(top / ROW) - SPARE);
  const last = Math.min(length - 1, Math.ceil((top + height) / ROW) + SPARE);
  React.useEffect(() => {
    if (last >= first) {
      list.ensure(first, last);
    }
  });

  const go = (place: number) => {
    const to = Math.max(0, Math.min(length - 1, place));
    setActive(to);
    const node = box.current;
    if (node) {
      if (to * ROW < node.scrollTop) {
        node.scrollTop = to * ROW;
      } else if ((to + 1) * ROW > node.scrollTop + node.clientHeight) {
        node.scrollTop = (to + 1) * ROW - node.clientHeight;
      }
    }
  };
  const onKeyDown = (event: React.KeyboardEvent) => {
    const page = Math.max(1, Math.floor(height / ROW) - 1);
    const moves: Record<string, number> = {
      ArrowDown: active + 1,
      ArrowUp: active - 1,
      PageDown: active + page,
      PageUp: active - page,
      Home: 0,
      End: length - 1
    };
    const row = list.at(active);
    if (event.key in moves) {
      go(moves[event.key]);
    } else if ((event.key === 'Enter' || event.key === ' ') && row) {
      props.select(row);
    } else if (event.key === 'Escape') {
      props.select(null);
    } else {
      return;
    }
    event.preventDefault();
    event.stopPropagation();
  };

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
      ref={box}
      className="jp-mlops-list"
      role="listbox"
      tabIndex={0}
      aria-label={trans.__('Cell runs, newest first')}
      aria-activedescendant={
        active >= first && active <= last ? `jp-mlops-row-${active}` : undefined
      }
      onScroll={event => setTop(event.currentTarget.scrollTop)}
      onKeyDown={onKeyDown}
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

/** A glyph for each state, beside its word. */
const GLYPH: Record<string, string> = {
  done: '✓',
  error: '✗',
  syntax: '✗',
  interrupted: '■',
  running: '▸'
};

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
  const how = row.trigger && row.trigger !== 'session' ? clean(row.trigger) : '';
  return (
    <>
      <span className={`jp-mlops-state jp-mod-${row.status}`} aria-hidden="true">
        {GLYPH[row.status] ?? '·'}
      </span>
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
}

/** Fetches the details of a cell run, again when it has gone on. */
function Details(props: IDetailsProps): JSX.Element {
  const { book, trans, id } = props;
  const [cell, setCell] = React.useState<CellDetail | null>(null);
  const [problem, setProblem] = React.useState<Refused | null>(null);
  const [height, setHeight] = React.useState(55);
  const over = cell !== null && cell.row.status !== 'running';
  const mark_ = over ? '' : book.overview?.mark;
  React.useEffect(() => {
    let gone = false;
    book.detail(id).then(
      found => {
        if (!gone) {
          setCell(found);
          setProblem(null);
        }
      },
      error => {
        if (!gone) {
          setProblem(error instanceof Refused ? error : new Refused('Failed', `${error}`));
        }
      }
    );
    return () => {
      gone = true;
    };
  }, [book, id, mark_]);
  return (
    <section
      className="jp-mlops-details"
      aria-label={trans.__('Details of a cell run')}
      style={{ flexBasis: `${height}%` }}
      onKeyDown={event => {
        if (event.key === 'Escape') {
          event.stopPropagation();
          props.close();
        }
      }}
    >
      <div
        className="jp-mlops-grip"
        role="separator"
        tabIndex={0}
        aria-orientation="horizontal"
        aria-valuenow={height}
        aria-valuemin={20}
        aria-valuemax={85}
        aria-label={trans.__('Height of the details')}
        onKeyDown={event => {
          const step = event.key === 'ArrowUp' ? 5 : event.key === 'ArrowDown' ? -5 : 0;
          if (step) {
            event.preventDefault();
            setHeight(Math.max(20, Math.min(85, height + step)));
          }
        }}
        onPointerDown={event => {
          const grip = event.currentTarget;
          const whole = grip.parentElement?.parentElement?.getBoundingClientRect();
          grip.setPointerCapture(event.pointerId);
          grip.onpointermove = move => {
            if (whole) {
              const part = (100 * (whole.bottom - move.clientY)) / whole.height;
              setHeight(Math.max(20, Math.min(85, Math.round(part))));
            }
          };
          grip.onpointerup = () => {
            grip.onpointermove = null;
          };
        }}
      />
      {cell ? (
        <Detail {...props} cell={cell} />
      ) : (
        <div className="jp-mlops-none" role="status">
          {problem
            ? problem.kind === 'NotFound'
              ? trans.__('It is not on record where this server looks yet.')
              : clean(problem.message || problem.kind)
            : trans.__('Loading…')}
          <button className="jp-mlops-plain" onClick={props.close}>
            {trans.__('Close')}
          </button>
        </div>
      )}
    </section>
  );
}
