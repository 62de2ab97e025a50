/** Runs as points: two columns against one another, a third as colour. */
import type { TranslationBundle } from '@jupyterlab/translation';
import * as React from 'react';

import { useKept } from './asking';
import { useSize } from './controls';
import type { Book } from './model';
import { MeasuredRun } from './records';
import { IColumn, scaleOf, valueOf } from './runtable';
import { clean, flat, short } from './words';

const HEIGHT = 220;
const LEFT = 52;
const RIGHT = 12;
const TOP = 10;
const BOTTOM = 30;
/** Points that are drawn: the first of the runs as they are sorted. */
const MOST = 2000;

export interface IScatterProps {
  book: Book;
  trans: TranslationBundle;
  runs: MeasuredRun[];
  columns: IColumn[];
  selected: string | null;
  select: (id: string) => void;
}

/** A colour between two of the theme's. */
function mixed(part: number): string {
  return `color-mix(in srgb, var(--jp-brand-color1) ${Math.round(part * 100)}%, var(--jp-warn-color1))`;
}

interface IDot {
  run: MeasuredRun;
  x: number;
  y: number;
  colour: number | null;
}

export function Scatter(props: IScatterProps): JSX.Element {
  const { book, trans, runs, columns } = props;
  const given = columns.filter(one => one.kind === 'parameter');
  const metrics = columns.filter(one => one.kind === 'metric');
  const took = columns.filter(one => one.id === 'fact:seconds');
  const offered = [...given, ...metrics, ...took];
  const [wishX, setX] = useKept(book, 'scatter x', '');
  const [wishY, setY] = useKept(book, 'scatter y', '');
  const [wishColour, setColour] = useKept<string | null>(book, 'scatter colour', null);
  const known = (id: string) => offered.some(one => one.id === id);
  const x = known(wishX) ? wishX : (given[0] ?? metrics[1] ?? took[0])?.id;
  const y = known(wishY) ? wishY : (metrics[0] ?? took[0])?.id;
  const second = given.find(one => one.id !== x && one.differs)?.id ?? '';
  const colour = wishColour === null ? second : known(wishColour) ? wishColour : '';
  const box = React.useRef<HTMLDivElement>(null);
  const width = Math.max(160, useSize(box, [280, 0])[0]);
  const [active, setActive] = React.useState(0);

  const some = runs.length > MOST ? runs.slice(0, MOST) : runs;
  const { dots, across, up, tone } = React.useMemo(() => {
    const read = (column: string) => some.map(run => valueOf(run, column));
    const both = { across: scaleOf(read(x)), up: scaleOf(read(y)) };
    const third = colour ? scaleOf(read(colour)) : null;
    const found: IDot[] = [];
    for (const run of some) {
      const right = both.across.at(valueOf(run, x));
      const high = both.up.at(valueOf(run, y));
      if (right !== null && high !== null) {
        const shade = third ? third.at(valueOf(run, colour)) : null;
        found.push({ run, x: right, y: high, colour: shade });
      }
    }
    found.sort((one, other) => one.x - other.x || one.y - other.y);
    return { dots: found, ...both, tone: third };
  }, [some, x, y, colour]);
  const left = some.length - dots.length;
  const atX = (part: number) => LEFT + part * (width - LEFT - RIGHT);
  const atY = (part: number) => HEIGHT - BOTTOM - part * (HEIGHT - TOP - BOTTOM);
  const nameOf = (id: string) => {
    const column = offered.find(one => one.id === id);
    return column?.kind === 'fact' ? trans.__('Took') : clean(column?.name ?? '');
  };
  const at = Math.min(active, Math.max(0, dots.length - 1));
  const onKeyDown = (event: React.KeyboardEvent<SVGSVGElement>) => {
    const moves: Record<string, number> = {
      ArrowRight: at + 1,
      ArrowLeft: at - 1,
      ArrowUp: at - 1,
      ArrowDown: at + 1,
      Home: 0,
      End: dots.length - 1
    };
    if (event.key in moves) {
      const to = Math.max(0, Math.min(dots.length - 1, moves[event.key]));
      setActive(to);
      const points = event.currentTarget.querySelectorAll<SVGElement>('[role=button]');
      points[to]?.focus();
    } else if ((event.key === 'Enter' || event.key === ' ') && dots[at]) {
      props.select(dots[at].run.id);
    } else {
      return;
    }
    event.preventDefault();
    event.stopPropagation();
  };
  const select = (label: string, value: string, choose: (id: string) => void, none: boolean) => (
    <label>
      {label}{' '}
      <select value={value} onChange={event => choose(event.target.value)}>
        {none && <option value="">{trans.__('none')}</option>}
        {[
          ['parameter', trans.__('Parameters')],
          ['metric', trans.__('Metrics')],
          ['fact', trans.__('Of the run')]
        ].map(([kind, title]) => {
          const own = offered.filter(one => one.kind === kind);
          return (
            own.length > 0 && (
              <optgroup key={kind} label={title}>
                {own.map(one => (
                  <option key={one.id} value={one.id}>
                    {nameOf(one.id)}
                  </option>
                ))}
              </optgroup>
            )
          );
        })}
      </select>
    </label>
  );
  const notes: string[] = [];
  if (left > 0) {
    notes.push(trans._n('%1 run has no such values', '%1 runs have no such values', left));
  }
  if (some.length < runs.length) {
    notes.push(trans.__('the first %1 of %2 are drawn', some.length, runs.length));
  }
  return (
    <section className="jp-mlops-scatter" aria-label={trans.__('Plot of the runs')}>
      <div className="jp-mlops-axes">
        {select(trans.__('Across'), x, setX, false)}
        {select(trans.__('Up'), y, setY, false)}
        {select(trans.__('Colour'), colour, setColour, true)}
      </div>
      <div ref={box}>
        <svg
          width={width}
          height={HEIGHT}
          role="group"
          aria-label={trans.__(
            '%1 by %2: arrow keys go from run to run, Enter shows one',
            nameOf(y),
            nameOf(x)
          )}
          onKeyDown={onKeyDown}
        >
          <g aria-hidden="true">
            {across.marks.map((mark, number) => (
              <React.Fragment key={number}>
                <line x1={atX(mark.at)} x2={atX(mark.at)} y1={TOP} y2={HEIGHT - BOTTOM} />
                <text x={atX(mark.at)} y={HEIGHT - BOTTOM + 14} textAnchor="middle">
                  {flat(mark.label).slice(0, 12)}
                </text>
              </React.Fragment>
            ))}
            {up.marks.map((mark, number) => (
              <React.Fragment key={number}>
                <line x1={LEFT} x2={width - RIGHT} y1={atY(mark.at)} y2={atY(mark.at)} />
                <text x={LEFT - 6} y={atY(mark.at) + 4} textAnchor="end">
                  {flat(mark.label).slice(0, 8)}
                </text>
              </React.Fragment>
            ))}
            <text x={width - RIGHT} y={HEIGHT - 3} textAnchor="end">
              {`${nameOf(x)}${across.log ? ' (log)' : ''}`.slice(0, 40)}
            </text>
          </g>
          {dots.map((dot, number) => {
            const parts = [
              `${nameOf(x)} ${flat(valueOf(dot.run, x))}`,
              `${nameOf(y)} ${flat(valueOf(dot.run, y))}`
            ];
            if (colour) {
              parts.push(`${nameOf(colour)} ${flat(valueOf(dot.run, colour) ?? null)}`);
            }
            const label = `${trans.__('Run %1', short(dot.run.id))}: ${parts.join(', ')}`;
            return (
              <circle
                key={dot.run.id}
                className={`jp-mlops-dot${dot.run.id === props.selected ? ' jp-mod-open' : ''}`}
                role="button"
                tabIndex={number === at ? 0 : -1}
                aria-label={label}
                cx={atX(dot.x)}
                cy={atY(dot.y)}
                r={5}
                style={dot.colour === null ? undefined : { fill: mixed(dot.colour) }}
                onFocus={() => setActive(number)}
                onClick={() => props.select(dot.run.id)}
              >
                <title>{label}</title>
              </circle>
            );
          })}
        </svg>
      </div>
      {tone && tone.marks.length > 0 && (
        <div className="jp-mlops-legend">
          <span>{nameOf(colour)}</span>
          <span>{flat(tone.marks[0].label)}</span>
          <span className="jp-mlops-ramp" aria-hidden="true" />
          <span>{flat(tone.marks[tone.marks.length - 1].label)}</span>
        </div>
      )}
      <div className="jp-mlops-dim jp-mlops-plot-notes">
        {dots.length ? notes.join('; ') : trans.__('No run has both values.')}
      </div>
    </section>
  );
}
