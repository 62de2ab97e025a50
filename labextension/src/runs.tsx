/** The runs of a notebook or project, as a table: sorted, filtered, compared, drawn. Only the rows in sight exist. */
import type { TranslationBundle } from '@jupyterlab/translation';
import * as React from 'react';

import { useKept } from './asking';
import { Comparison } from './compared';
import { Facts, Section } from './parts';
import { MeasuredRun } from './records';
import { columnsOf, filtered, IColumn, IRunFilter, ISort, sorted, valueOf } from './runtable';
import { Scatter } from './scatter';
import type { ITab, ITabProps } from './tabs';
import { clean, duration, flat, glyph, moment, refusal, short, state, when } from './words';

const ROW = 28;
const SPARE = 6;
const NAME = 104;
/** Runs that are compared at once. */
const MOST = 8;
/** Parameters and metrics that are shown unless others are chosen. */
const SHOWN = 12;
const WIDTHS: Record<string, number> = {
  'fact:time': 96,
  'fact:status': 88,
  'fact:trigger': 84,
  'fact:notebook': 150,
  'fact:seconds': 80,
  'fact:user': 96
};

export const runs: ITab = {
  name: 'runs',
  label: trans => trans.__('Runs'),
  body: RunsTab
};

/** What a column is called. */
export function heading(column: IColumn, trans: TranslationBundle): string {
  if (column.kind !== 'fact') {
    return clean(column.name);
  }
  switch (column.name) {
    case 'time':
      return trans.__('Started');
    case 'status':
      return trans.__('State');
    case 'trigger':
      return trans.__('Kind');
    case 'notebook':
      return trans.__('Notebook');
    case 'seconds':
      return trans.__('Took');
  }
  return trans.__('Who');
}

/** A run's value in a column, as text. */
function shown(run: MeasuredRun, column: IColumn, trans: TranslationBundle): string {
  const value = valueOf(run, column.id);
  switch (column.id) {
    case 'fact:time':
      return when(run.time);
    case 'fact:status':
      return stateOf(run.status, trans);
    case 'fact:trigger':
      return kindOf(run.trigger, trans);
    case 'fact:seconds':
      return run.status === 'running' ? '' : duration(run.seconds);
  }
  return value === undefined ? '' : flat(value);
}

function stateOf(status: string, trans: TranslationBundle): string {
  switch (status) {
    case 'failed':
      return trans.__('failed');
    case 'cached':
      return trans.__('cached');
  }
  return state(status, trans);
}

function kindOf(trigger: string, trans: TranslationBundle): string {
  switch (trigger) {
    case 'session':
      return trans.__('session');
    case 'papermill':
      return trans.__('headless');
    case 'sweep':
      return trans.__('sweep');
    case 'pipeline':
      return trans.__('pipeline');
  }
  return clean(trigger);
}

function RunsTab(props: ITabProps): JSX.Element {
  const { book, trans, wanted } = props;
  const [whole, setWhole] = useKept(book, 'runs whole', false);
  const [filter, setFilter] = useKept<IRunFilter>(book, 'runs filter', {
    search: '',
    trigger: '',
    status: ''
  });
  const [sort, setSort] = useKept<ISort>(book, 'runs sort', { column: 'fact:time', down: true });
  const [picked, setPicked] = useKept<string[]>(book, 'runs picked', []);
  const [columns, setColumns] = useKept<string[] | null>(book, 'runs columns', null);
  const [plotted, setPlotted] = useKept(book, 'runs plotted', false);
  const [choosing, setChoosing] = React.useState(false);
  const [comparing, setComparing] = React.useState(false);
  const [selected, setSelected] = React.useState<string | null>(null);
  const notebook = whole ? '' : (book.overview?.notebook ?? '');
  const mark = book.overview?.mark;
  const table = book.table;
  React.useEffect(() => {
    if (mark !== undefined) {
      table.ensure(notebook, mark);
    }
  }, [table, notebook, mark, book.path]);
  React.useEffect(() => {
    if (wanted) {
      setComparing(false);
      setSelected(wanted.what);
    }
  }, [wanted]);

  const all = table.runs;
  const every = React.useMemo(() => columnsOf(all), [all]);
  const found = React.useMemo(() => sorted(filtered(all, filter), sort), [all, filter, sort]);
  const standard = every.filter(
    (one, at) =>
      (one.kind !== 'fact' && at < SHOWN) ||
      one.id === 'fact:time' ||
      one.id === 'fact:trigger' ||
      one.id === 'fact:seconds' ||
      (one.id === 'fact:notebook' && whole)
  );
  const visible = columns ? every.filter(one => columns.includes(one.id)) : standard;
  const back = React.useRef<HTMLButtonElement>(null);

  if (comparing) {
    return (
      <Comparison
        {...props}
        runs={picked}
        close={() => {
          setComparing(false);
          requestAnimationFrame(() => back.current?.focus());
        }}
        show={id => {
          setComparing(false);
          setSelected(id);
        }}
      />
    );
  }
  const kinds = [...new Set(all.map(run => run.trigger))].sort();
  const states = [...new Set(all.map(run => run.status))].sort();
  const toggle = (id: string) => {
    setPicked(
      picked.includes(id) ? picked.filter(one => one !== id) : [...picked, id].slice(-MOST)
    );
  };
  const narrowed = found.length !== all.length;
  const run = selected ? all.find(one => one.id === selected) : undefined;
  return (
    <div className="jp-mlops-whole">
      <div className="jp-mlops-filter">
        <input
          className="jp-mod-styled"
          type="search"
          placeholder={trans.__('Search parameters, metrics, names')}
          aria-label={trans.__('Search runs')}
          value={filter.search}
          onChange={event => setFilter({ ...filter, search: event.target.value })}
        />
      </div>
      <div className="jp-mlops-count jp-mlops-narrowing">
        <select
          aria-label={trans.__('Whose runs')}
          value={whole ? 'project' : 'notebook'}
          onChange={event => setWhole(event.target.value === 'project')}
        >
          <option value="notebook">{trans.__('This notebook')}</option>
          <option value="project">{trans.__('Project')}</option>
        </select>
        <select
          aria-label={trans.__('Show runs by kind')}
          value={filter.trigger}
          onChange={event => setFilter({ ...filter, trigger: event.target.value })}
        >
          <option value="">{trans.__('All kinds')}</option>
          {kinds.map(kind => (
            <option key={kind} value={kind}>
              {kindOf(kind, trans)}
            </option>
          ))}
        </select>
        <select
          aria-label={trans.__('Show runs by state')}
          value={filter.status}
          onChange={event => setFilter({ ...filter, status: event.target.value })}
        >
          <option value="">{trans.__('All states')}</option>
          {states.map(status => (
            <option key={status} value={status}>
              {stateOf(status, trans)}
            </option>
          ))}
        </select>
      </div>
      <div className="jp-mlops-tools">
        <span role="status" className="jp-mlops-dim">
          {!table.known
            ? trans.__('Loading…')
            : all.length < table.total
              ? trans.__('%1 of %2 runs read…', all.length, table.total)
              : narrowed
                ? trans.__('%1 of %2 runs', found.length, all.length)
                : trans._n('%1 run', '%1 runs', all.length)}
        </span>
        <button
          ref={back}
          className="jp-mlops-plain"
          disabled={picked.length < 2}
          title={trans.__('Choose two or more runs with the boxes before them')}
          onClick={() => setComparing(true)}
        >
          {picked.length ? trans.__('Compare %1', picked.length) : trans.__('Compare')}
        </button>
        {picked.length > 0 && (
          <button className="jp-mlops-plain" onClick={() => setPicked([])}>
            {trans.__('Clear')}
          </button>
        )}
        <button
          className="jp-mlops-plain"
          aria-pressed={plotted}
          onClick={() => setPlotted(!plotted)}
        >
          {trans.__('Plot')}
        </button>
        <button
          className="jp-mlops-plain"
          aria-expanded={choosing}
          onClick={() => setChoosing(!choosing)}
        >
          {trans.__('Columns')}
        </button>
      </div>
      {table.problem && (
        <div className="jp-mlops-problem" role="alert">
          {refusal(table.problem, trans)
            .filter(part => part)
            .join(' ')}{' '}
          <button className="jp-mlops-plain" onClick={() => table.retry()}>
            {trans.__('Try again')}
          </button>
        </div>
      )}
      {choosing && (
        <Columns
          trans={trans}
          every={every}
          visible={visible}
          choose={setColumns}
          close={() => setChoosing(false)}
        />
      )}
      {plotted && (
        <Scatter
          book={book}
          trans={trans}
          runs={found}
          columns={every}
          select={setSelected}
          selected={selected}
        />
      )}
      <Table
        trans={trans}
        runs={found}
        columns={visible}
        sort={sort}
        setSort={setSort}
        picked={picked}
        toggle={toggle}
        selected={selected}
        select={setSelected}
        empty={
          !table.known
            ? ''
            : all.length
              ? trans.__('No run is like that.')
              : trans.__('No run is on record here yet.')
        }
      />
      {run && (
        <RunDetail
          key={run.id}
          {...props}
          run={run}
          close={() => setSelected(null)}
          select={setSelected}
        />
      )}
    </div>
  );
}

interface IColumnsProps {
  trans: TranslationBundle;
  every: IColumn[];
  visible: IColumn[];
  choose: (columns: string[] | null) => void;
  close: () => void;
}

/** Which columns are shown. */
function Columns({ trans, every, visible, choose, close }: IColumnsProps): JSX.Element {
  const ids = visible.map(one => one.id);
  const group = (kind: string) => every.filter(one => one.kind === kind);
  const title: Record<string, string> = {
    parameter: trans.__('Parameters'),
    metric: trans.__('Metrics'),
    fact: trans.__('Of the run')
  };
  return (
    <div
      className="jp-mlops-columns"
      role="group"
      aria-label={trans.__('Columns')}
      onKeyDown={event => {
        if (event.key === 'Escape') {
          event.stopPropagation();
          close();
        }
      }}
    >
      {['parameter', 'metric', 'fact'].map(
        kind =>
          group(kind).length > 0 && (
            <fieldset key={kind}>
              <legend>{title[kind]}</legend>
              {group(kind).map(one => (
                <label key={one.id}>
                  <input
                    type="checkbox"
                    checked={ids.includes(one.id)}
                    onChange={event =>
                      choose(
                        event.target.checked ? [...ids, one.id] : ids.filter(id => id !== one.id)
                      )
                    }
                  />
                  {heading(one, trans)}
                  {one.kind !== 'fact' && !one.differs && (
                    <span className="jp-mlops-dim"> {trans.__('(the same in all)')}</span>
                  )}
                </label>
              ))}
            </fieldset>
          )
      )}
      <button className="jp-mlops-plain" onClick={() => choose(null)}>
        {trans.__('As at first')}
      </button>
      <button className="jp-mlops-plain" onClick={close}>
        {trans.__('Close')}
      </button>
    </div>
  );
}

interface ITableProps {
  trans: TranslationBundle;
  runs: MeasuredRun[];
  columns: IColumn[];
  sort: ISort;
  setSort: (sort: ISort) => void;
  picked: string[];
  toggle: (id: string) => void;
  selected: string | null;
  select: (id: string | null) => void;
  empty: string;
}

function Table(props: ITableProps): JSX.Element {
  const { trans, runs: found, columns, sort, picked } = props;
  const box = React.useRef<HTMLDivElement>(null);
  const [top, setTop] = React.useState(0);
  const [height, setHeight] = React.useState(600);
  const [active, setActive] = React.useState(0);
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
  const length = found.length;
  const first = Math.max(0, Math.floor(top / ROW) - SPARE);
  const last = Math.min(length - 1, Math.ceil((top + height) / ROW) + SPARE);
  const template = [NAME, ...columns.map(one => WIDTHS[one.id] ?? (one.numeric ? 68 : 92))];
  const grid = { gridTemplateColumns: template.map(width => `${width}px`).join(' ') };
  const width = template.reduce((sum, one) => sum + one, 0);
  const at = Math.min(active, Math.max(0, length - 1));

  const go = (place: number) => {
    const to = Math.max(0, Math.min(length - 1, place));
    setActive(to);
    const node = box.current;
    if (node) {
      if (to * ROW < node.scrollTop) {
        node.scrollTop = to * ROW;
      } else if ((to + 2) * ROW > node.scrollTop + node.clientHeight) {
        node.scrollTop = (to + 2) * ROW - node.clientHeight;
      }
    }
  };
  const onKeyDown = (event: React.KeyboardEvent) => {
    if (event.target !== event.currentTarget) {
      return; // a button of the head has its own keys
    }
    const page = Math.max(1, Math.floor(height / ROW) - 2);
    const moves: Record<string, number> = {
      ArrowDown: at + 1,
      ArrowUp: at - 1,
      PageDown: at + page,
      PageUp: at - page,
      Home: 0,
      End: length - 1
    };
    const run = found[at];
    if (event.key in moves) {
      go(moves[event.key]);
    } else if (event.key === 'ArrowRight' || event.key === 'ArrowLeft') {
      box.current?.scrollBy({ left: event.key === 'ArrowRight' ? 96 : -96 });
    } else if (event.key === 'Enter' && run) {
      props.select(run.id);
    } else if (event.key === ' ' && run) {
      props.toggle(run.id);
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
    const run = found[place];
    rows.push(
      <div
        key={run.id}
        id={`jp-mlops-run-${place}`}
        role="row"
        aria-rowindex={place + 2}
        aria-selected={picked.includes(run.id)}
        className={`jp-mlops-run${place === at ? ' jp-mod-active' : ''}${run.id === props.selected ? ' jp-mod-open' : ''}`}
        style={{ ...grid, top: place * ROW, height: ROW, width }}
        onClick={() => {
          setActive(place);
          props.select(run.id);
        }}
      >
        <span role="gridcell" className="jp-mlops-run-name">
          <input
            type="checkbox"
            tabIndex={-1}
            aria-label={trans.__('Choose run %1', short(run.id))}
            checked={picked.includes(run.id)}
            onClick={event => event.stopPropagation()}
            onChange={() => props.toggle(run.id)}
          />
          <span
            className={`jp-mlops-state jp-mod-${/^[a-z]+$/.test(run.status) ? run.status : 'other'}`}
            role="img"
            aria-label={stateOf(run.status, trans)}
            title={stateOf(run.status, trans)}
          >
            {glyph(run.status)}
          </span>
          <span className="jp-mlops-name" title={short(run.id)}>
            {short(run.id).slice(0, 6)}
          </span>
        </span>
        {columns.map(column => {
          const text = shown(run, column, trans);
          return (
            <span
              key={column.id}
              role="gridcell"
              className={column.numeric ? 'jp-mod-number' : ''}
              title={column.id === 'fact:time' ? moment(run.time) : text}
            >
              {text}
            </span>
          );
        })}
      </div>
    );
  }
  return (
    <div
      ref={box}
      className="jp-mlops-list jp-mlops-runs"
      role="grid"
      tabIndex={0}
      aria-label={trans.__('Runs: Enter shows one, Space chooses it for comparing')}
      aria-rowcount={length + 1}
      aria-colcount={columns.length + 1}
      aria-multiselectable="true"
      aria-activedescendant={length && at >= first && at <= last ? `jp-mlops-run-${at}` : undefined}
      onScroll={event => setTop(event.currentTarget.scrollTop)}
      onKeyDown={onKeyDown}
    >
      <div role="rowgroup" className="jp-mlops-run-head" style={{ width }}>
        <div role="row" aria-rowindex={1} style={grid}>
          <span role="columnheader" className="jp-mlops-run-name">
            {trans.__('Run')}
          </span>
          {columns.map(column => {
            const own = sort.column === column.id;
            const same = columns.some(one => one.name === column.name && one.id !== column.id);
            const kind =
              column.kind === 'metric'
                ? trans.__('metric')
                : column.kind === 'parameter'
                  ? trans.__('parameter')
                  : '';
            return (
              <span
                key={column.id}
                className={column.numeric ? 'jp-mod-number' : ''}
                role="columnheader"
                aria-sort={own ? (sort.down ? 'descending' : 'ascending') : 'none'}
              >
                <button
                  title={[heading(column, trans), kind].filter(part => part).join(', ')}
                  onClick={() =>
                    props.setSort({
                      column: column.id,
                      down: own ? !sort.down : column.kind !== 'parameter'
                    })
                  }
                >
                  <span className="jp-mlops-cut">
                    {heading(column, trans)}
                    {same && kind ? ` (${kind})` : ''}
                  </span>
                  <span aria-hidden="true">{own ? (sort.down ? '▾' : '▴') : ''}</span>
                </button>
              </span>
            );
          })}
        </div>
      </div>
      {length > 0 ? (
        <div role="rowgroup" className="jp-mlops-tall" style={{ height: length * ROW, width }}>
          {rows}
        </div>
      ) : (
        props.empty && (
          <div role="rowgroup">
            <div role="row">
              <span role="gridcell" className="jp-mlops-none">
                {props.empty}
              </span>
            </div>
          </div>
        )
      )}
    </div>
  );
}

interface IRunDetailProps extends ITabProps {
  run: MeasuredRun;
  close: () => void;
  select: (id: string) => void;
}

/** One run. */
function RunDetail(props: IRunDetailProps): JSX.Element {
  const { book, trans, run } = props;
  const place = run.result ? book.place(run.result) : null;
  const parent = run.parent;
  const pairs = (values: Record<string, unknown>): [string, string][] =>
    Object.entries(values)
      .sort(([one], [other]) => (one < other ? -1 : 1))
      .map(([name, value]) => [clean(name), flat(value)]);
  const parameters = pairs({ ...run.logged, ...run.parameters });
  const metrics = pairs(run.metrics);
  const children = book.table.runs.filter(one => one.parent === run.id).length;
  return (
    <section
      className="jp-mlops-details"
      aria-label={trans.__('Details of a run')}
      style={{ flexBasis: '45%' }}
      onKeyDown={event => {
        if (event.key === 'Escape') {
          event.stopPropagation();
          props.close();
        }
      }}
    >
      <div className="jp-mlops-detail-head">
        <h3>{trans.__('Run %1', short(run.id))}</h3>
        {run.result && (
          <button
            className="jp-mlops-plain"
            disabled={place === null}
            title={
              place === null
                ? trans.__('It is not where this server shows files: %1', clean(run.result))
                : trans.__('Open the notebook it left: %1', clean(run.result))
            }
            onClick={() => place !== null && props.openFile(place)}
          >
            {trans.__('Open result')}
          </button>
        )}
        <button
          className="jp-mlops-plain"
          aria-label={trans.__('Close the details')}
          onClick={props.close}
        >
          {trans.__('Close')}
        </button>
      </div>
      <div
        className="jp-mlops-detail-body"
        tabIndex={0}
        role="group"
        aria-label={trans.__('What is on record of it')}
      >
        <Facts
          rows={[
            [trans.__('State'), stateOf(run.status, trans)],
            [trans.__('Kind'), kindOf(run.trigger, trans)],
            [trans.__('Started'), moment(run.time)],
            [trans.__('Took'), run.status === 'running' ? '' : duration(run.seconds)],
            [trans.__('Notebook'), clean(run.notebook)],
            [trans.__('Who'), clean(run.user)],
            [trans.__('On behalf of'), clean(run.on_behalf_of ?? '')],
            [trans.__('Tickets'), run.tickets.map(one => clean(one.id)).join(' ')],
            [trans.__('Result'), clean(run.result)],
            [
              trans.__('Part of'),
              parent ? (
                <button className="jp-mlops-link" onClick={() => props.select(parent)}>
                  {trans.__('run %1', short(parent))}
                </button>
              ) : (
                ''
              )
            ],
            [trans.__('Its runs'), children ? `${children}` : ''],
            [
              trans.__('Not read'),
              run.unread
                ? trans._n('%1 earlier logged value', '%1 earlier logged values', run.unread)
                : ''
            ]
          ]}
        />
        {run.error && (
          <Section title={trans.__('Error')} open>
            <pre className="jp-mlops-error">{clean(run.error)}</pre>
          </Section>
        )}
        {metrics.length > 0 && (
          <Section title={trans.__('Metrics')} count={metrics.length} open>
            <Facts rows={metrics} />
          </Section>
        )}
        {parameters.length > 0 && (
          <Section title={trans.__('Parameters')} count={parameters.length} open>
            <Facts rows={parameters} />
          </Section>
        )}
      </div>
    </section>
  );
}
