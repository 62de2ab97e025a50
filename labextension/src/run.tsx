/** A form to run a notebook with: its parameters, how and where. */
import { ReactWidget } from '@jupyterlab/apputils';
import type { TranslationBundle } from '@jupyterlab/translation';
import * as React from 'react';

import { Link } from './controls';
import { Notice, Section } from './parts';
import { Field } from './records';
import { IDesk, IRunProps, TheJob } from './runjob';
import { IHow, RunModel } from './runmodel';
import { clean } from './words';

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

function Run(props: IRunProps): JSX.Element {
  const { model, desk, trans } = props;
  const name = model.path.split('/').pop() ?? '';
  const dirty = desk.dirty(model.path);
  return (
    <div className="jp-mlops-run-body">
      <h2>{trans.__('Run %1', clean(name))}</h2>
      {dirty && (
        <Notice>
          {trans.__('This notebook has changes that are not saved. What runs is the file.')}{' '}
          <Link onClick={() => void desk.save(model.path).then(() => model.load())}>
            {trans.__('Save it')}
          </Link>
        </Notice>
      )}
      <Notice problem={model.problem} trans={trans} />
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
      {checked?.problem && <Notice fault>{clean(checked.problem)}</Notice>}
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
