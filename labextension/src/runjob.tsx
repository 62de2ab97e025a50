/** How far a run is that was asked for in its form, and what came of it. */
import type { TranslationBundle } from '@jupyterlab/translation';
import { ISignal } from '@lumino/signaling';
import * as React from 'react';

import { Link, Plain } from './controls';
import { over } from './jobs';
import { Facts, IFact, Section, Sign } from './parts';
import { Job } from './records';
import { placed, RunModel } from './runmodel';
import { clean, duration, flat, short, state } from './words';

/** What the form has done elsewhere in the application. */
export interface IDesk {
  /** Whether the notebook is open, and has changes that are not saved. */
  dirty(path: string): boolean;
  readonly dirtyChanged: ISignal<unknown, unknown>;
  save(path: string): Promise<void>;
  open(path: string): void;
  /** Show a cell run in the side panel. */
  show(id: string): void;
}

export interface IRunProps {
  model: RunModel;
  desk: IDesk;
  trans: TranslationBundle;
}

type IJobProps = IRunProps & { job: Job };

export function TheJob(props: IJobProps): JSX.Element {
  const { model, trans, job } = props;
  const ends = over(job);
  const box = React.useRef<HTMLElement>(null);
  React.useEffect(() => {
    box.current?.scrollIntoView({ block: 'nearest' });
  }, [job.id, job.state, model.rows.length]);
  return (
    <section
      ref={box}
      className="jp-mlops-job"
      aria-label={trans.__('The last run asked for here')}
    >
      <h3>
        <Sign status={look(job)} />{' '}
        <span role="status">{ends ? ended(job, trans) : trans.__('Running…')}</span>
        <span className="jp-mlops-dim"> {duration(job.seconds)}</span>
        {!ends && (
          <Plain onClick={() => void model.job?.interrupt()}>{trans.__('Interrupt')}</Plain>
        )}
      </h3>
      <code className="jp-mlops-command">{clean(job.command)}</code>
      {!ends && <HowFar {...props} />}
      {ends && (job.verb === 'sweep' ? <Table {...props} /> : <Outcome {...props} />)}
      {job.said.length > 0 && (
        <Section title={trans.__('What it said')} open={job.state === 'failed'}>
          <pre>{job.said.map(clean).join('\n')}</pre>
        </Section>
      )}
    </section>
  );
}

function look(job: Job): string {
  return job.state === 'failed' || job.state === 'no' ? 'error' : job.state;
}

function ended(job: Job, trans: TranslationBundle): string {
  const answer = record(job.answer);
  if (job.state === 'done' && answer.status === 'cached') {
    return trans.__('Nothing had to run: a run on record would do the same');
  }
  return job.state === 'done'
    ? trans.__('Done')
    : job.state === 'interrupted'
      ? trans.__('Interrupted')
      : trans.__('Failed');
}

function HowFar({ job, trans }: IJobProps): JSX.Element {
  const { done, steps, now } = job.progress;
  return (
    <div className="jp-mlops-far">
      {steps > 1 && (
        <div>
          <label>
            {trans.__('%1 of %2 runs are over', done, steps)}
            <progress value={done} max={steps} />
          </label>
        </div>
      )}
      {now.map(one => (
        <div key={one.step}>
          <label>
            {steps > 1 ? <span className="jp-mlops-name">{clean(one.step)} </span> : null}
            {one.cells
              ? trans.__('cell %1 of %2', one.cell, one.cells)
              : trans.__('the kernel starts')}
            <progress value={one.cells ? one.cell - 1 : undefined} max={one.cells || 1} />
          </label>
        </div>
      ))}
      {steps === 1 && now.length === 0 && (
        <label>
          {trans.__('it begins')}
          <progress />
        </label>
      )}
    </div>
  );
}

function Outcome(props: IJobProps): JSX.Element {
  const { model, desk, trans, job } = props;
  const answer = record(job.answer);
  const output = placed(job, answer.output);
  const metrics = Object.entries(record(answer.metrics));
  const error = typeof answer.error === 'string' ? answer.error : '';
  return (
    <>
      {error && <pre className="jp-mlops-error">{clean(error)}</pre>}
      <Facts
        rows={[
          [trans.__('Run'), short(job.run)],
          ...metrics.map(([name, value]): IFact => [clean(name), flat(value)]),
          [
            trans.__('Result'),
            output && (
              <Link onClick={() => desk.open(output)}>
                {trans.__('Open %1', clean(output.split('/').pop() ?? ''))}
              </Link>
            )
          ]
        ]}
      />
      {model.rows.length > 0 && (
        <Section title={trans.__('Its cells')} count={model.rows.length} open>
          <ol className="jp-mlops-ran">
            {model.rows.map(row => (
              <li key={row.id}>
                <Link
                  title={trans.__('Show what is on record of it')}
                  onClick={() => desk.show(row.id)}
                >
                  {clean(row.title) || trans.__('(no code on record)')}
                </Link>{' '}
                <span className="jp-mlops-dim">
                  {state(row.status, trans)}, {duration(row.seconds)}
                </span>
              </li>
            ))}
          </ol>
        </Section>
      )}
    </>
  );
}

const APART = new Set(['notebook', 'run', 'why']);

/** The table of a sweep. */
function Table({ job, desk, trans }: IJobProps): JSX.Element | null {
  const answer = record(job.answer);
  const rows = Array.isArray(answer.rows) ? answer.rows.map(record) : [];
  if (!rows.length) {
    return null;
  }
  const names = Object.keys(rows[0]).filter(name => !APART.has(name));
  return (
    <div
      className="jp-mlops-table"
      tabIndex={0}
      role="region"
      aria-label={trans.__('What each run came to')}
    >
      <table>
        <thead>
          <tr>
            <th scope="col">{trans.__('Result')}</th>
            {names.map(name => (
              <th key={name} scope="col">
                {clean(name)}
              </th>
            ))}
          </tr>
        </thead>
        <tbody>
          {rows.map((row, at) => {
            const path = placed(job, row.notebook);
            return (
              <tr key={at} className={at === answer.best ? 'jp-mod-best' : ''}>
                <td>
                  {path ? (
                    <Link title={clean(path)} onClick={() => desk.open(path)}>
                      {trans.__('Open')}
                    </Link>
                  ) : (
                    '—'
                  )}
                  {at === answer.best ? ` ★ ${trans.__('best')}` : ''}
                </td>
                {names.map(name => (
                  <td key={name} title={name === 'status' ? clean(`${row.why ?? ''}`) : undefined}>
                    {name === 'seconds' ? duration(Number(row[name])) : flat(row[name])}
                  </td>
                ))}
              </tr>
            );
          })}
        </tbody>
      </table>
    </div>
  );
}

function record(value: unknown): Record<string, unknown> {
  return value !== null && typeof value === 'object' && !Array.isArray(value)
    ? (value as Record<string, unknown>)
    : {};
}
