/** The runs of a notebook or project: narrowed, compared, drawn, and each with what is on record of it. */
import type { TranslationBundle } from '@jupyterlab/translation';
import * as React from 'react';

import { useKept } from './asking';
import { Comparison } from './compared';
import { escape, IOption, Plain, Search, Select } from './controls';
import { Notice } from './parts';
import { RunDetail } from './rundetail';
import { heading, RunList } from './runlist';
import { columnsOf, filtered, IColumn, IRunFilter, ISort, sorted } from './runtable';
import { Scatter } from './scatter';
import type { ITab, ITabProps } from './tabs';
import { origin, state } from './words';

/** Runs that are compared at once. */
const MOST = 8;
/** Parameters and metrics that are shown unless others are chosen. */
const SHOWN = 12;

export const runs: ITab = {
  name: 'runs',
  label: trans => trans.__('Runs'),
  body: RunsTab
};

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
      <Search
        label={trans.__('Search runs')}
        hint={trans.__('Search parameters, metrics, names')}
        value={filter.search}
        choose={search => setFilter({ ...filter, search })}
      />
      <div className="jp-mlops-count jp-mlops-narrowing">
        <Select
          label={trans.__('Whose runs')}
          value={whole ? 'project' : 'notebook'}
          choose={value => setWhole(value === 'project')}
          options={[
            ['notebook', trans.__('Notebook')],
            ['project', trans.__('Project')]
          ]}
        />
        <Select
          label={trans.__('Show runs by kind')}
          value={filter.trigger}
          choose={trigger => setFilter({ ...filter, trigger })}
          options={[
            ['', trans.__('All kinds')],
            ...kinds.map((kind): IOption => [kind, origin(kind, trans)])
          ]}
        />
        <Select
          label={trans.__('Show runs by state')}
          value={filter.status}
          choose={status => setFilter({ ...filter, status })}
          options={[
            ['', trans.__('All states')],
            ...states.map((status): IOption => [status, state(status, trans)])
          ]}
        />
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
        <Plain
          ref={back}
          disabled={picked.length < 2}
          title={trans.__('Choose two or more runs with the boxes before them')}
          onClick={() => setComparing(true)}
        >
          {picked.length ? trans.__('Compare %1', picked.length) : trans.__('Compare')}
        </Plain>
        {picked.length > 0 && <Plain onClick={() => setPicked([])}>{trans.__('Clear')}</Plain>}
        <Plain aria-pressed={plotted} onClick={() => setPlotted(!plotted)}>
          {trans.__('Plot')}
        </Plain>
        <Plain aria-expanded={choosing} onClick={() => setChoosing(!choosing)}>
          {trans.__('Columns')}
        </Plain>
      </div>
      <Notice problem={table.problem} trans={trans}>
        <Plain onClick={() => table.retry()}>{trans.__('Try again')}</Plain>
      </Notice>
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
      <RunList
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
      onKeyDown={escape(close)}
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
      <Plain onClick={() => choose(null)}>{trans.__('As at first')}</Plain>
      <Plain onClick={close}>{trans.__('Close')}</Plain>
    </div>
  );
}
