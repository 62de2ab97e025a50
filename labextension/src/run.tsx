/** A form to run a notebook with: its parameters, how and where; how far it is; what came of it. */
import { ReactWidget } from '@jupyterlab/apputils';
import type { TranslationBundle } from '@jupyterlab/translation';
import { ISignal } from '@lumino/signaling';
import * as React from 'react';

import { Facts, Section } from './parts';
import { over } from './jobs';
import { Field, Job } from './records';
import { IHow, placed, RunModel } from './runmodel';
import { clean, duration, flat, refusal, short, state } from './words';

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

export class RunForm extends ReactWidget {
  constructor(
    readonly model: RunModel,
    private desk: IDesk,
    private trans: TranslationBundle
  ) {
    super();
    this.addClass('jp-mlops-run');
    this.node.tabIndex = -1;
    this.node.setAttribute('role', 'region');
    this.node.setAttribute('aria-label', trans.__('Run a notebook'));
    model.changed.connect(this.update, this);
    desk.dirtyChanged.connect(this.update, this);
  }

  override dispose(): void {
    if (!this.isDisposed) {
      this.desk.dirtyChanged.disconnect(this.update, this);
      this.model.dispose();
      super.dispose();
    }
  }

  protected override onActivateRequest(): void {
    // Once: who clicks into the form later is not to be led away from what is clicked.
    if (!this.begun) {
      this.begun = true;
      this.focusFirst(60);
    }
  }

  /** Focus what is first of use; it may have to be drawn yet. */
  private focusFirst(frames: number): void {
    const first = this.node.querySelector<HTMLElement>('input:not([type=radio]), select');
    if (document.activeElement !== this.node && this.node.contains(document.activeElement)) {
      return; // somebody is faster
    }
    if (first) {
      first.focus();
    } else if (frames > 0 && !this.isDisposed) {
      requestAnimationFrame(() => this.focusFirst(frames - 1));
    }
  }

  protected override render(): JSX.Element {
    return <Run model={this.model} desk={this.desk} trans={this.trans} />;
  }

  private begun = false;
}

interface IRunProps {
  model: RunModel;
  desk: IDesk;
  trans: TranslationBundle;
}

function Run(props: IRunProps): JSX.Element {
  const { model, desk, trans } = props;
  const name = model.path.split('/').pop() ?? '';
  const dirty = desk.dirty(model.path);
  return (
    <div className="jp-mlops-run-body">
      <h2>{trans.__('Run %1', clean(name))}</h2>
      {dirty && (
        <div className="jp-mlops-problem" role="status">
          {trans.__('This notebook has changes that are not saved. What runs is the file.')}{' '}
          <button
            className="jp-mlops-link"
            type="button"
            onClick={() => void desk.save(model.path).then(() => model.load())}
          >
            {trans.__('Save it')}
          </button>
        </div>
      )}
      {model.problem && (
        <div className="jp-mlops-problem" role="alert">
          {refusal(model.problem, trans)
            .filter(part => part)
            .join(' ')}
        </div>
      )}
      {model.form ? (
        <TheForm {...props} />
      ) : (
        !model.problem && <p role="status">{trans.__('Loading…')}</p>
      )}
      {model.job && <TheJob {...props} job={model.job.job} />}
    </div>
  );
}

function TheForm(props: IRunProps): JSX.Element {
  const { model, trans } = props;
  const { form, how, checked } = model;
  if (!form) {
    return <></>;
  }
  const runs = checked?.runs ?? 0;
  return (
    <form
      className="jp-mlops-form"
      noValidate
      autoComplete="off"
      onSubmit={event => {
        event.preventDefault();
        void model.run();
      }}
    >
      <fieldset className="jp-mlops-ways">
        <legend>{trans.__('How often')}</legend>
        <Way {...props} sweep={false} label={trans.__('Once')} />
        <Way {...props} sweep label={trans.__('Over many values')} />
      </fieldset>
      {form.fields.length > 0 ? (
        <fieldset>
          <legend>{trans.__('Parameters')}</legend>
          {how.sweep && (
            <p className="jp-mlops-hint">
              {trans.__('Each takes one value, or several:')} <code>3,5,7</code> <code>1..9</code>{' '}
              <code>0..1:5</code> <code>0.01..0.3:log:5</code>
            </p>
          )}
          {form.fields.map(field => (
            <Parameter key={field.name} {...props} field={field} />
          ))}
        </fieldset>
      ) : (
        <p className="jp-mlops-hint">
          {form.why
            ? clean(form.why)
            : form.declares
              ? trans.__('Its cell of parameters assigns no name.')
              : trans.__(
                  'It declares no parameters. Give a cell that assigns some names the tag “parameters”, and they appear here.'
                )}
        </p>
      )}
      {how.sweep && (
        <fieldset>
          <legend>{trans.__('The sweep')}</legend>
          <Other
            {...props}
            name="best"
            label={trans.__('Best by metric')}
            help={trans.__('its largest value; with :min after it, its smallest')}
          />
          <Other
            {...props}
            name="draws"
            label={trans.__('Combinations to draw')}
            help={trans.__('all of them, unless a number is given')}
            wrong={trans.__('A whole number from 1 to 10000')}
          />
        </fieldset>
      )}
      <Section title={trans.__('Where, and how')}>
        <Choice
          {...props}
          name="target"
          label={trans.__('Target')}
          choices={[
            ['', how.sweep ? trans.__('this machine, warm kernels') : trans.__('this machine')],
            ...form.targets.map((one): [string, string, boolean] => [
              one.name,
              one.why
                ? trans.__('%1 — %2', clean(one.name), clean(one.why))
                : trans.__('%1 — %2', clean(one.name), clean(one.about)),
              one.why !== ''
            ])
          ]}
        />
        <Choice
          {...props}
          name="cache"
          label={trans.__('What is on record already')}
          choices={[
            ['off', trans.__('run all of it again')],
            ['notebook', trans.__('skip a run that would do the same')],
            ['cells', trans.__('recall each cell that would do the same')]
          ]}
        />
        <Other
          {...props}
          name="ticket"
          label={trans.__('Tickets')}
          help={trans.__('what it is for; several with spaces between them')}
        />
        <Other
          {...props}
          name="retries"
          label={trans.__('Tries after a failure')}
          wrong={trans.__('A whole number from 0 to 100')}
        />
        <Other
          {...props}
          name="timeout"
          label={trans.__('Seconds it may take')}
          wrong={trans.__('A number above 0')}
        />
        <Other
          {...props}
          name="cellTimeout"
          label={trans.__('Seconds a cell may take')}
          wrong={trans.__('A number above 0')}
        />
      </Section>
      {checked?.problem && (
        <div className="jp-mlops-problem" role="alert">
          {clean(checked.problem)}
        </div>
      )}
      <div className="jp-mlops-do">
        <button
          className="jp-mod-styled jp-mod-accept"
          type="submit"
          disabled={!model.ready || model.busy}
        >
          {how.sweep && runs > 0 ? trans._n('Run once', 'Run %1 times', runs) : trans.__('Run')}
        </button>
        {checked?.command && (
          <code className="jp-mlops-command" aria-label={trans.__('The same in a shell')}>
            {clean(checked.command)}
          </code>
        )}
      </div>
    </form>
  );
}

function Way(props: IRunProps & { sweep: boolean; label: string }): JSX.Element {
  const { model } = props;
  return (
    <label>
      <input
        type="radio"
        name={`jp-mlops-ways-${model.path}`}
        checked={model.how.sweep === props.sweep}
        onChange={() => model.ask({ sweep: props.sweep })}
      />
      {props.label}
    </label>
  );
}

/** A line of the form: what it is called, where it is typed, what it means and what is wrong with it. */
function Line(props: {
  id: string;
  label: React.ReactNode;
  help: React.ReactNode;
  wrong: string;
  children: (described: {
    id: string;
    'aria-describedby': string | undefined;
    'aria-invalid': boolean;
  }) => React.ReactNode;
}): JSX.Element {
  const { id, help, wrong } = props;
  const by = [help ? `${id}-help` : '', wrong ? `${id}-wrong` : ''].filter(one => one).join(' ');
  return (
    <div className="jp-mlops-line">
      <label htmlFor={id}>{props.label}</label>
      {props.children({ id, 'aria-describedby': by || undefined, 'aria-invalid': wrong !== '' })}
      {help && (
        <span className="jp-mlops-hint" id={`${id}-help`}>
          {help}
        </span>
      )}
      {wrong && (
        <span className="jp-mlops-wrong" id={`${id}-wrong`}>
          {wrong}
        </span>
      )}
    </div>
  );
}

function idOf(model: RunModel, name: string): string {
  return `jp-mlops-run-${encodeURIComponent(model.path)}-${encodeURIComponent(name)}`;
}

function Parameter(props: IRunProps & { field: Field }): JSX.Element {
  const { model, trans, field } = props;
  const typed = model.words.get(field.name) ?? '';
  const help = [
    clean(field.help),
    field.choices.length && model.how.sweep ? field.choices.map(clean).join(', ') : '',
    field.secret ? trans.__('secret: it is given to the run, and kept nowhere') : ''
  ].filter(one => one);
  const chooses = field.choices.length > 0 && !model.how.sweep && !field.secret;
  return (
    <Line
      id={idOf(model, `p-${field.name}`)}
      label={
        <>
          {clean(field.name)}
          {field.type && <span className="jp-mlops-type"> {clean(field.type)}</span>}
        </>
      }
      help={help.join(' · ')}
      wrong={clean(model.checked?.problems[field.name] ?? '')}
    >
      {described =>
        chooses ? (
          <select
            {...described}
            className="jp-mod-styled"
            value={typed}
            onChange={event => model.set(field, event.target.value)}
          >
            <option value="">
              {field.default
                ? trans.__('%1 (as the notebook has it)', clean(field.default))
                : trans.__('as the notebook has it')}
            </option>
            {field.choices.map(one => (
              <option key={one} value={one}>
                {clean(one)}
              </option>
            ))}
          </select>
        ) : (
          <input
            {...described}
            className="jp-mod-styled"
            type={field.secret ? 'password' : 'text'}
            autoComplete={field.secret ? 'new-password' : 'off'}
            spellCheck={false}
            value={typed}
            placeholder={field.secret ? trans.__('as the notebook has it') : clean(field.default)}
            onChange={event => model.set(field, event.target.value)}
          />
        )
      }
    </Line>
  );
}

function Other(
  props: IRunProps & {
    name: Exclude<keyof IHow, 'sweep' | 'cache' | 'target'>;
    label: string;
    help?: string;
    wrong?: string;
  }
): JSX.Element {
  const { model, name } = props;
  return (
    <Line
      id={idOf(model, name)}
      label={props.label}
      help={props.help ?? ''}
      wrong={model.wrong(name) ? (props.wrong ?? '') : ''}
    >
      {described => (
        <input
          {...described}
          className="jp-mod-styled"
          type="text"
          spellCheck={false}
          value={model.how[name]}
          onChange={event => model.ask({ [name]: event.target.value })}
        />
      )}
    </Line>
  );
}

function Choice(
  props: IRunProps & {
    name: 'target' | 'cache';
    label: string;
    choices: ([string, string] | [string, string, boolean])[];
  }
): JSX.Element {
  const { model, name } = props;
  return (
    <Line id={idOf(model, name)} label={props.label} help="" wrong="">
      {described => (
        <select
          {...described}
          className="jp-mod-styled"
          value={model.how[name]}
          onChange={event => model.ask({ [name]: event.target.value } as Partial<IHow>)}
        >
          {props.choices.map(([value, label, disabled]) => (
            <option key={value} value={value} disabled={disabled}>
              {label}
            </option>
          ))}
        </select>
      )}
    </Line>
  );
}

// -- how far it is, and what came of it

type IJobProps = IRunProps & { job: Job };

function TheJob(props: IJobProps): JSX.Element {
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
        <span className={`jp-mlops-state jp-mod-${look(job)}`} aria-hidden="true">
          {GLYPH[look(job)]}
        </span>{' '}
        <span role="status">{ends ? ended(job, trans) : trans.__('Running…')}</span>
        <span className="jp-mlops-dim"> {duration(job.seconds)}</span>
        {!ends && (
          <button
            className="jp-mlops-plain"
            type="button"
            onClick={() => void model.job?.interrupt()}
          >
            {trans.__('Interrupt')}
          </button>
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

const GLYPH: Record<string, string> = { done: '✓', error: '✗', interrupted: '■', running: '▸' };

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
          ...metrics.map(([name, value]): [string, string] => [clean(name), flat(value)]),
          [
            trans.__('Result'),
            output && (
              <button className="jp-mlops-link" type="button" onClick={() => desk.open(output)}>
                {trans.__('Open %1', clean(output.split('/').pop() ?? ''))}
              </button>
            )
          ]
        ]}
      />
      {model.rows.length > 0 && (
        <Section title={trans.__('Its cells')} count={model.rows.length} open>
          <ol className="jp-mlops-ran">
            {model.rows.map(row => (
              <li key={row.id}>
                <button
                  className="jp-mlops-link"
                  type="button"
                  title={trans.__('Show what is on record of it')}
                  onClick={() => desk.show(row.id)}
                >
                  {clean(row.title) || trans.__('(no code on record)')}
                </button>{' '}
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
                    <button
                      className="jp-mlops-link"
                      type="button"
                      title={clean(path)}
                      onClick={() => desk.open(path)}
                    >
                      {trans.__('Open')}
                    </button>
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
