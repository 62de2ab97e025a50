/** Asks for what an act needs, has it done, and shows what came of it: one form for all of them. */
import type { TranslationBundle } from '@jupyterlab/translation';
import * as React from 'react';

import { Refused } from './client';
import { escape, Verb } from './controls';
import { Gates } from './gates';
import { refusal } from './words';

export interface IField {
  name: string;
  label: string;
  value?: string;
  /** What is known to fit, to choose from. */
  known?: string[];
  /** More than a line, or something to tick. */
  kind?: 'text' | 'tick';
  /** Whether it has to be given; where that hangs on what else is, the project's settings have it so. */
  required?: boolean | ((given: Given) => boolean);
  /** What a browser holds it against, and what it says where that does not fit. */
  pattern?: string;
  hint?: string;
}

export type Given = Record<string, string>;

export interface IActProps {
  trans: TranslationBundle;
  /** What is to be done, in the words of its heading. */
  title: string;
  /** The words of the button that does it. */
  verb: string;
  fields: IField[];
  /** What is to be known before it is done. */
  note?: (given: Given) => React.ReactNode;
  /** Do it; gives what there is to be shown of it. What takes long may show how far it is. */
  act: (given: Given, show: (now: React.ReactNode) => void) => Promise<React.ReactNode>;
  close: () => void;
}

let forms = 0;

export function Act(props: IActProps): JSX.Element {
  const { trans, fields } = props;
  const [given, setGiven] = React.useState<Given>(() =>
    Object.fromEntries(fields.map(one => [one.name, one.value ?? '']))
  );
  const [busy, setBusy] = React.useState(false);
  const [problem, setProblem] = React.useState<Refused | null>(null);
  const [done, setDone] = React.useState<React.ReactNode>(null);
  const [now, setNow] = React.useState<React.ReactNode>(null);
  const form = React.useRef<HTMLFormElement>(null);
  const answer = React.useRef<HTMLDivElement>(null);
  const [id] = React.useState(() => `jp-mlops-act-${++forms}`);
  React.useEffect(() => {
    form.current?.querySelector<HTMLElement>('input, textarea, button')?.focus();
  }, []);
  React.useEffect(() => {
    if (problem || done) {
      answer.current?.scrollIntoView({ block: 'nearest' });
    }
  }, [problem, done]);
  const submit = async (event: React.FormEvent) => {
    event.preventDefault();
    if (busy) {
      return;
    }
    setBusy(true);
    setProblem(null);
    setDone(null);
    try {
      setDone(await props.act(given, setNow));
    } catch (error) {
      setProblem(error instanceof Refused ? error : new Refused('Failed', `${error}`));
    } finally {
      setBusy(false);
      setNow(null);
    }
  };
  return (
    <form
      ref={form}
      className="jp-mlops-act"
      aria-labelledby={`${id}-title`}
      aria-busy={busy}
      onSubmit={event => void submit(event)}
      onKeyDown={escape(props.close)}
    >
      <div id={`${id}-title`} className="jp-mlops-act-title">
        {props.title}
      </div>
      {fields.map(field => (
        <Field
          key={field.name}
          id={`${id}-${field.name}`}
          field={field}
          required={typeof field.required === 'function' ? field.required(given) : field.required}
          trans={trans}
          value={given[field.name]}
          set={value => {
            setGiven(before => ({ ...before, [field.name]: value }));
          }}
        />
      ))}
      {props.note && <div className="jp-mlops-note">{props.note(given)}</div>}
      <div className="jp-mlops-buttons">
        <button type="submit" className="jp-mod-styled jp-mod-accept" aria-disabled={busy}>
          {busy ? trans.__('Working…') : props.verb}
        </button>
        <Verb onClick={props.close}>{done ? trans.__('Close') : trans.__('Cancel')}</Verb>
      </div>
      <div ref={answer}>
        {now}
        {problem && <Refusing problem={problem} trans={trans} />}
        {done && (
          <div className="jp-mlops-done" role="status">
            {done}
          </div>
        )}
      </div>
    </form>
  );
}

interface IFieldProps {
  id: string;
  field: IField;
  required?: boolean;
  trans: TranslationBundle;
  value: string;
  set: (value: string) => void;
}

function Field({ id, field, required, trans, value, set }: IFieldProps): JSX.Element {
  const demanded = required === true && typeof field.required === 'function';
  const hint = demanded ? trans.__('The project’s settings demand it') : field.hint;
  const common = {
    id,
    required,
    'aria-describedby': hint ? `${id}-hint` : undefined
  };
  if (field.kind === 'tick') {
    return (
      <label className="jp-mlops-tick">
        <input
          {...common}
          type="checkbox"
          checked={value === 'yes'}
          onChange={event => set(event.target.checked ? 'yes' : '')}
        />
        {field.label}
      </label>
    );
  }
  return (
    <div className="jp-mlops-field">
      <label htmlFor={id}>{field.label}</label>
      {field.kind === 'text' ? (
        <textarea
          {...common}
          className="jp-mod-styled"
          rows={2}
          maxLength={4000}
          value={value}
          onChange={event => set(event.target.value)}
        />
      ) : (
        <input
          {...common}
          className="jp-mod-styled"
          type="text"
          autoComplete="off"
          spellCheck={false}
          list={field.known?.length ? `${id}-known` : undefined}
          pattern={field.pattern}
          title={field.pattern ? field.hint : undefined}
          value={value}
          onChange={event => set(event.target.value)}
        />
      )}
      {field.known && field.known.length > 0 && (
        <datalist id={`${id}-known`}>
          {field.known.map(one => (
            <option key={one} value={one} />
          ))}
        </datalist>
      )}
      {hint && (
        <span id={`${id}-hint`} className="jp-mlops-dim">
          {hint}
        </span>
      )}
    </div>
  );
}

/** Why something was not done: the thing, the cause, what to do next; and of gates what each found and demanded. */
export function Refusing(props: { problem: Refused; trans: TranslationBundle }): JSX.Element {
  const { problem, trans } = props;
  const [thing, cause, next] = refusal(problem, trans);
  return (
    <div className="jp-mlops-problem" role="alert">
      <b>{thing}</b>
      {cause && <div>{cause}</div>}
      {problem.checks.length > 0 && <Gates gates={problem.checks} trans={trans} open />}
      {next && <div>{next}</div>}
    </div>
  );
}

/** Tickets as they were typed: with commas or blanks between them. */
export function tickets(text: string): string[] {
  return text.split(/[\s,]+/).filter(one => one !== '');
}
