/** Runs side by side: what is not the same in all of them, their code, and what they showed. */
import * as React from 'react';

import { useRecord } from './asking';
import { Body, escape, Head, Link } from './controls';
import { Lines } from './difference';
import { Notes, Section, Waiting } from './parts';
import { Aspect, Compared } from './records';
import type { ITabProps } from './tabs';
import { clean, flat, short, when } from './words';

export interface IComparisonProps extends ITabProps {
  runs: string[];
  close: () => void;
  show: (id: string) => void;
}

export function Comparison(props: IComparisonProps): JSX.Element {
  const { book, trans, runs } = props;
  const [found, problem] = useRecord<Compared>(
    undefined,
    () => book.client.compare(book.path, runs),
    [book, book.path, runs.join()]
  );
  return (
    <section
      className="jp-mlops-whole"
      aria-label={trans.__('Runs side by side')}
      onKeyDown={escape(props.close)}
    >
      <Head
        title={trans._n('%1 run side by side', '%1 runs side by side', runs.length)}
        back={{ label: trans.__('All runs'), go: props.close, autoFocus: true }}
      />
      <Body label={trans.__('What is different')}>
        {found ? <Sides {...props} found={found} /> : <Waiting problem={problem} trans={trans} />}
      </Body>
    </section>
  );
}

function Sides(props: IComparisonProps & { found: Compared }): JSX.Element {
  const { trans, found } = props;
  const of = (...kinds: string[]) => found.aspects.filter(one => kinds.includes(one.what));
  const rest = found.aspects.filter(
    one =>
      !['parameter', 'metric', 'status', 'environment', 'package', 'variable'].includes(one.what)
  );
  const same = found.aspects.length === 0 && found.cells.length === 0;
  const images = found.shown.reduce((sum, one) => sum + one.images, 0);
  const kept = found.shown.reduce((sum, one) => sum + one.plots.length, 0);
  return (
    <>
      {same && <p role="status">{trans.__('No difference is on record.')}</p>}
      {found.aspects.length > 0 && (
        <Values
          {...props}
          groups={[
            [trans.__('Parameters'), of('parameter')],
            [trans.__('Metrics'), of('metric')],
            [trans.__('State'), [...of('status'), ...rest]],
            [trans.__('Environment'), of('environment', 'variable')],
            [trans.__('Packages'), of('package')]
          ]}
        />
      )}
      {found.cells.length > 0 && (
        <Section title={trans.__('Code and data of cells')} count={found.cells.length} open>
          {found.cells.map((cell, at) => (
            <div key={at} className="jp-mlops-compared-cell">
              <pre>{clean(cell.source.split('\n').slice(0, 3).join('\n'))}</pre>
              {cell.differs.map(
                (differs, number) =>
                  differs.length > 0 && (
                    <div key={number}>
                      <span className="jp-mlops-dim">
                        {trans.__(
                          'Run %1 against %2: %3',
                          short(found.runs[number].id),
                          short(found.runs[0].id),
                          differs.map(clean).join(', ')
                        )}
                      </span>
                      {cell.diffs[number].length > 0 && (
                        <Lines
                          lines={cell.diffs[number]}
                          label={trans.__('How the code differs')}
                        />
                      )}
                    </div>
                  )
              )}
            </div>
          ))}
        </Section>
      )}
      {images > 0 && (
        <Section title={trans.__('Plots')} count={images} open={kept > 0}>
          <div className="jp-mlops-plots">
            {found.shown.map((one, at) => (
              <div key={at}>
                <div className="jp-mlops-dim">{trans.__('Run %1', short(found.runs[at].id))}</div>
                {one.plots.map((plot, number) => (
                  <img
                    key={number}
                    src={`data:${plot.type === 'image/jpeg' ? 'image/jpeg' : 'image/png'};base64,${plot.data}`}
                    alt={trans.__('Shown by cell %1', clean(plot.cell))}
                  />
                ))}
                {one.images > one.plots.length && (
                  <p>
                    {trans._n(
                      '%1 image is not kept in the record or not shown here.',
                      '%1 images are not kept in the record or not shown here.',
                      one.images - one.plots.length
                    )}
                  </p>
                )}
              </div>
            ))}
          </div>
        </Section>
      )}
      <Notes title={trans.__('Not compared')} of={found.unknown} open />
    </>
  );
}

interface IValuesProps extends IComparisonProps {
  found: Compared;
  groups: [string, Aspect[]][];
}

/** What differs in rows, a column for each run. */
function Values(props: IValuesProps): JSX.Element {
  const { trans, found } = props;
  return (
    <div className="jp-mlops-sides" tabIndex={0} role="group" aria-label={trans.__('Values')}>
      <table>
        <thead>
          <tr>
            <td />
            {found.runs.map(run => (
              <th key={run.id} scope="col">
                <Link title={when(run.time)} onClick={() => props.show(run.id)}>
                  {short(run.id)}
                </Link>
              </th>
            ))}
          </tr>
        </thead>
        {props.groups.map(
          ([title, rows]) =>
            rows.length > 0 && (
              <tbody key={title}>
                <tr>
                  <th scope="rowgroup" colSpan={found.runs.length + 1}>
                    {title}
                  </th>
                </tr>
                {rows.map((row, at) => (
                  <tr key={at}>
                    <th scope="row">{clean(row.name) || clean(row.what)}</th>
                    {row.values.map((value, number) => (
                      <td key={number}>
                        {value === null || value === undefined ? trans.__('none') : flat(value)}
                      </td>
                    ))}
                  </tr>
                ))}
              </tbody>
            )
        )}
      </table>
    </div>
  );
}
