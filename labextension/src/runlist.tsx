/** Runs as a table: sorted, chosen, walked through. Only the rows in sight exist. */
import type { TranslationBundle } from '@jupyterlab/translation';
import * as React from 'react';

import { IRows, useRows } from './controls';
import { Sign } from './parts';
import { MeasuredRun } from './records';
import { IColumn, ISort, valueOf } from './runtable';
import { clean, duration, flat, joined, moment, origin, short, state, when } from './words';

const ROW = 28;
const NAME = 104;
/** Pixels of a character, of one in a heading, and beside a text; the least and most of a column that has no set width. */
const CHARACTER = 7.6;
const IN_HEADING = 8.8;
const BESIDE = 22;
const NARROWEST = 60;
const WIDEST = 168;
/** Runs whose values are looked at for the width of a column. */
const LOOKED_AT = 200;
const WIDTHS: Record<string, number> = {
  'fact:time': 96,
  'fact:status': 88,
  'fact:trigger': 84,
  'fact:notebook': 150,
  'fact:seconds': 80,
  'fact:user': 96
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
      return state(run.status, trans);
    case 'fact:trigger':
      return origin(run.trigger, trans);
    case 'fact:seconds':
      return run.status === 'running' ? '' : duration(run.seconds);
  }
  return value === undefined ? '' : flat(value);
}

/** As wide as what stands in it, within reason. */
function widthOf(column: IColumn, runs: MeasuredRun[], trans: TranslationBundle): number {
  if (column.id in WIDTHS) {
    return WIDTHS[column.id];
  }
  const texts = runs.slice(0, LOOKED_AT).map(run => shown(run, column, trans));
  const long = Math.max(
    heading(column, trans).length * IN_HEADING,
    ...texts.map(text => text.length * CHARACTER)
  );
  return Math.round(Math.max(NARROWEST, Math.min(WIDEST, long + BESIDE)));
}

interface IRunListProps {
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

export function RunList(props: IRunListProps): JSX.Element {
  const { trans, runs: found, columns, sort, picked } = props;
  const press = (key: string, place: number): boolean => {
    const run = found[place];
    if (key === 'ArrowRight' || key === 'ArrowLeft') {
      list.box.ref.current?.scrollBy({ left: key === 'ArrowRight' ? 96 : -96 });
    } else if (key === 'Enter' && run) {
      props.select(run.id);
    } else if (key === ' ' && run) {
      props.toggle(run.id);
    } else if (key === 'Escape') {
      props.select(null);
    } else {
      return false;
    }
    return true;
  };
  const length = found.length;
  const list: IRows = useRows(length, ROW, ROW, press);
  const template = React.useMemo(
    () => [NAME, ...columns.map(one => widthOf(one, found, trans))],
    [columns, found, trans]
  );
  const grid = { gridTemplateColumns: template.map(width => `${width}px`).join(' ') };
  const width = template.reduce((sum, one) => sum + one, 0);

  const rows: JSX.Element[] = [];
  for (let place = list.first; place <= list.last; place++) {
    const run = found[place];
    rows.push(
      <div
        key={run.id}
        id={`jp-mlops-run-row-${place}`}
        role="row"
        aria-rowindex={place + 2}
        aria-selected={picked.includes(run.id)}
        className={`jp-mlops-run-row${place === list.active ? ' jp-mod-active' : ''}${run.id === props.selected ? ' jp-mod-open' : ''}`}
        style={{ ...grid, top: place * ROW, height: ROW, width }}
        onClick={() => {
          list.setActive(place);
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
          <Sign status={run.status} word={state(run.status, trans)} />
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
      {...list.box}
      className="jp-mlops-list jp-mlops-runs"
      role="grid"
      aria-label={trans.__('Runs: Enter shows one, Space chooses it for comparing')}
      aria-rowcount={length + 1}
      aria-colcount={columns.length + 1}
      aria-multiselectable="true"
      aria-activedescendant={list.there === null ? undefined : `jp-mlops-run-row-${list.there}`}
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
                  title={joined([heading(column, trans), kind])}
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
