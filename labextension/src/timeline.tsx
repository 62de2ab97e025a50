/** The cell runs of a notebook: a list of which only the visible rows exist, and the details of one. Props in, callbacks out. */
import type { TranslationBundle } from '@jupyterlab/translation';
import * as React from 'react';

import { Act } from './acts';
import { useRecord } from './asking';
import { Detail } from './detail';
import { Difference } from './difference';
import { Facts, Gaps, Pane, Section, Waiting } from './parts';
import { CellDetail, Row } from './records';
import type { ITab, ITabProps } from './tabs';
import { clean, duration, flat, glyph, mark, moment, short, state, when } from './words';

const ROW = 48;
const SPARE = 6;

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
  const [active, setActive] = React.useState(0);
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

  const count = book.list.filtered
    ? book.list.more || book.list.busy
      ? trans.__('searching…')
      : trans._n('%1 found', '%1 found', book.list.length)
    : trans._n('%1 cell run', '%1 cell runs', book.list.length);
  return (
    <div ref={list} className="jp-mlops-timeline">
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
      {pinned && (
        <div className="jp-mlops-problem" role="status">
          {trans.__('Choose the cell run to compare %1 with.', short(pinned.id))}{' '}
          <button className="jp-mlops-link" onClick={() => setPinned(null)}>
            {trans.__('Do not compare')}
          </button>
        </div>
      )}
      {said && (
        <div className="jp-mlops-problem" role="status">
          {said}
        </div>
      )}
      <List
        {...props}
        active={active}
        setActive={setActive}
        selected={selected}
        select={row => choose(row?.id ?? null, row?.time)}
        narrowed={search !== '' || status !== ''}
      />
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
        {glyph(row.status)}
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
    </Pane>
  );
}

interface IWrittenProps extends ITabProps {
  act: 'slice' | 'checkout';
  cell: CellDetail;
  close: () => void;
}

/** Has a slice or a checkout of a cell run written; where to is asked for. */
function Written(props: IWrittenProps): JSX.Element {
  const { book, trans, act, cell, close, openFile } = props;
  const id = cell.row.id;
  const folder = book.path.split('/').slice(0, -1).join('/');
  const stem = (book.path.split('/').pop() ?? '').replace(/\.ipynb$/, '');
  const beside = (name: string) => (folder ? `${folder}/${name}` : name);
  if (act === 'slice') {
    const name = beside(`${stem}-slice-${short(id).slice(0, 6)}.ipynb`);
    return (
      <Act
        trans={trans}
        title={trans.__('Slice from here')}
        verb={trans.__('Write the notebook')}
        fields={[
          {
            name: 'output',
            label: trans.__('Notebook'),
            value: name,
            required: true,
            hint: trans.__('In the folder that this server shows; no file is replaced.')
          },
          {
            name: 'unseeded',
            label: trans.__('Also if it need not give the same again'),
            kind: 'tick'
          }
        ]}
        act={async given => {
          const done = await book.client.slice(book.path, {
            what: id,
            output: given.output.trim(),
            allow_unseeded: given.unseeded === 'yes'
          });
          openFile(book.onDrive(done.notebook));
          return (
            <>
              <div>
                {trans._n(
                  '%1 cell makes what this one made:',
                  '%1 cells make what this one made:',
                  done.cells
                )}{' '}
                <Opened path={done.notebook} {...props} />
              </div>
              <Gaps gaps={done.unseeded} title={trans.__('Need not give the same again')} open />
            </>
          );
        }}
        close={close}
      />
    );
  }
  return (
    <Act
      trans={trans}
      title={trans.__('Check out code and files')}
      verb={trans.__('Write them')}
      fields={[
        {
          name: 'folder',
          label: trans.__('Folder'),
          value: beside(`${stem}-${short(id).slice(0, 6)}`),
          required: true,
          hint: trans.__('New or empty, in the folder that this server shows: nothing is replaced.')
        }
      ]}
      act={async given => {
        const done = await book.client.checkOut(book.path, {
          what: id,
          folder: given.folder.trim()
        });
        return (
          <>
            <div>
              {trans._n('%1 file was written:', '%1 files were written:', done.placed.length)}{' '}
              <Opened path={done.notebook} {...props} />
            </div>
            {done.missing.length > 0 && (
              <Section title={trans.__('Not there')} count={done.missing.length} open>
                <Facts rows={done.missing.map(one => [clean(one.name), clean(one.why ?? '')])} />
              </Section>
            )}
            <Gaps gaps={done.gaps} title={trans.__('Not brought back')} open />
          </>
        );
      }}
      close={close}
    />
  );
}

/** A file that was written, to be opened. */
function Opened(props: ITabProps & { path: string }): JSX.Element {
  return (
    <button
      type="button"
      className="jp-mlops-link"
      onClick={() => props.openFile(props.book.onDrive(props.path))}
    >
      {clean(props.path)}
    </button>
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
      <div className="jp-mlops-detail-head">
        <h3>{trans.__('What is different')}</h3>
        <button
          className="jp-mlops-plain"
          onClick={props.close}
          aria-label={trans.__('Close the comparison')}
        >
          {trans.__('Close')}
        </button>
      </div>
      <div
        className="jp-mlops-detail-body"
        tabIndex={0}
        role="group"
        aria-label={trans.__('What is different')}
      >
        {found ? (
          <Difference found={found} trans={trans} />
        ) : (
          <Waiting problem={problem} trans={trans} />
        )}
      </div>
    </Pane>
  );
}
