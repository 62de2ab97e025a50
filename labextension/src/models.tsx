/** The project's models: their versions, the names that point to them, and the gates that were asked. */
import type { TranslationBundle } from '@jupyterlab/translation';
import * as React from 'react';

import { useRecord } from './asking';
import { Facts, Section } from './detail';
import { AliasRow, Answered, ModelDetail, ModelRow, Step, VersionRow } from './records';
import type { ITab, ITabProps } from './tabs';
import { bytes, clean, flat, moment, refusal, short, when } from './words';

export const models: ITab = {
  name: 'models',
  label: trans => trans.__('Models'),
  body: Models
};

function Models(props: ITabProps): JSX.Element {
  const { book, trans } = props;
  const mark = book.overview?.mark;
  const [found, problem] = useRecord(mark, () => book.client.models(book.path), [book, book.path]);
  const [chosen, setChosen] = React.useState<string | null>(null);
  const back = React.useRef<HTMLUListElement>(null);
  if (!found) {
    return (
      <div className="jp-mlops-none" role="status">
        {problem
          ? refusal(problem, trans)
              .filter(part => part)
              .join(' ')
          : trans.__('Loading…')}
      </div>
    );
  }
  if (chosen !== null && found.models.some(one => one.name === chosen)) {
    return (
      <Model
        {...props}
        name={chosen}
        close={() => {
          setChosen(null);
          requestAnimationFrame(() => back.current?.querySelector('button')?.focus());
        }}
      />
    );
  }
  if (!found.models.length) {
    return (
      <div className="jp-mlops-empty" role="status">
        <h3>{trans.__('No model is registered yet')}</h3>
        <p>{trans.__('In the cell that made one:')}</p>
        <code>%mlops register VARIABLE NAME</code>
      </div>
    );
  }
  return (
    <ul ref={back} className="jp-mlops-models" aria-label={trans.__('Models')}>
      {found.models.map(one => (
        <li key={one.name}>
          <button className="jp-mlops-model" onClick={() => setChosen(one.name)}>
            <ModelHead model={one} trans={trans} />
          </button>
        </li>
      ))}
    </ul>
  );
}

function ModelHead({ model, trans }: { model: ModelRow; trans: TranslationBundle }): JSX.Element {
  const aliases = Object.entries(model.aliases).sort();
  return (
    <>
      <b>{clean(model.name)}</b>
      <span className="jp-mlops-dim">
        {trans._n('%1 version', '%1 versions', model.versions)},{' '}
        {trans.__('the latest of %1 by %2', when(model.time), clean(model.by))}
      </span>
      <span className="jp-mlops-chips">
        {aliases.map(([alias, version]) => (
          <span key={alias} className="jp-mlops-chip">
            @{clean(alias)} → {version}
          </span>
        ))}
        {aliases.length === 0 && (
          <span className="jp-mlops-dim">{trans.__('no alias points to it')}</span>
        )}
      </span>
    </>
  );
}

function Model(props: ITabProps & { name: string; close: () => void }): JSX.Element {
  const { book, trans, name } = props;
  const [model, problem] = useRecord<ModelDetail>(
    book.overview?.mark,
    () => book.client.model(book.path, name),
    [book, book.path, name]
  );
  return (
    <section className="jp-mlops-whole" aria-label={trans.__('Model %1', clean(name))}>
      <div className="jp-mlops-detail-head">
        <h3>{clean(name)}</h3>
        <button className="jp-mlops-plain" autoFocus onClick={props.close}>
          {trans.__('All models')}
        </button>
      </div>
      <div
        className="jp-mlops-detail-body"
        tabIndex={0}
        role="group"
        aria-label={trans.__('What is on record of it')}
      >
        {problem && (
          <div className="jp-mlops-problem" role="alert">
            {refusal(problem, trans)
              .filter(part => part)
              .join(' ')}
          </div>
        )}
        {!model && !problem && <div role="status">{trans.__('Loading…')}</div>}
        {model?.aliases.map(alias => (
          <Alias key={alias.alias} alias={alias} trans={trans} />
        ))}
        {model?.versions.map((version, at) => (
          <Version key={version.version} version={version} open={at === 0} {...props} />
        ))}
      </div>
    </section>
  );
}

function Alias({ alias, trans }: { alias: AliasRow; trans: TranslationBundle }): JSX.Element {
  const to = alias.version === null ? trans.__('nothing') : trans.__('version %1', alias.version);
  return (
    <Section title={`@${clean(alias.alias)} → ${to}`} open>
      <ol className="jp-mlops-steps">
        {alias.steps.map((step, at) => (
          <li key={at}>
            <StepBody step={step} trans={trans} />
          </li>
        ))}
      </ol>
    </Section>
  );
}

function StepBody({ step, trans }: { step: Step; trans: TranslationBundle }): JSX.Element {
  const name = (version: number | null) => (version === null ? '—' : `${version}`);
  const what = step.refused
    ? trans.__('Version %1 was refused', name(step.new))
    : step.old === null
      ? trans.__('Set to version %1', name(step.new))
      : trans.__('Moved from version %1 to %2', name(step.old), name(step.new));
  return (
    <>
      <div>
        <span
          className={`jp-mlops-state jp-mod-${step.refused ? 'error' : 'done'}`}
          aria-hidden="true"
        >
          {step.refused ? '✗' : '✓'}
        </span>{' '}
        <b>{what}</b>
      </div>
      <div className="jp-mlops-dim" title={moment(step.time)}>
        {trans.__('%1 by %2', when(step.time), clean(step.by) || '—')}
        {step.tickets.length > 0 && ` · ${step.tickets.map(one => clean(one.id)).join(' ')}`}
      </div>
      {step.reason && <div>{clean(step.reason)}</div>}
      {step.checks.length > 0 && <Gates gates={step.checks} trans={trans} open={step.refused} />}
    </>
  );
}

/** Gates with what they demanded and found; those that were not met first. */
function Gates(props: { gates: Answered[]; trans: TranslationBundle; open: boolean }): JSX.Element {
  const { gates, trans } = props;
  const passed = gates.filter(one => one.passed).length;
  const sorted = [...gates].sort((one, other) => Number(one.passed) - Number(other.passed));
  return (
    <Section title={trans.__('%1 of %2 gates passed', passed, gates.length)} open={props.open}>
      <ul className="jp-mlops-gates">
        {sorted.map((one, at) => (
          <li key={at}>
            <span
              className={`jp-mlops-state jp-mod-${one.passed ? 'done' : 'error'}`}
              aria-hidden="true"
            >
              {one.passed ? '✓' : '✗'}
            </span>{' '}
            <b>{clean(one.check)}</b> {one.passed ? trans.__('passed') : trans.__('refused')}
            <Facts
              rows={[
                [trans.__('Found'), text(one.evidence.found)],
                [trans.__('Demanded'), text(one.evidence.demanded)],
                [trans.__('To do'), one.passed ? '' : text(one.evidence.next)]
              ]}
            />
            <Evidence evidence={one.evidence} trans={trans} />
          </li>
        ))}
      </ul>
    </Section>
  );
}

const SAID = new Set(['found', 'demanded', 'next', 'for']);

function Evidence(props: {
  evidence: Record<string, unknown>;
  trans: TranslationBundle;
}): JSX.Element | null {
  const more = Object.entries(props.evidence).filter(([key]) => !SAID.has(key));
  if (!more.length) {
    return null;
  }
  return (
    <Section title={props.trans.__('Evidence')}>
      <Facts rows={more.map(([key, value]) => [clean(key), flat(value)])} />
    </Section>
  );
}

function text(value: unknown): string {
  return value === undefined || value === null ? '' : flat(value);
}

function Version(props: ITabProps & { version: VersionRow; open: boolean }): JSX.Element {
  const { version: one, trans } = props;
  const aliases = one.aliases.map(alias => `@${clean(alias)}`).join(' ');
  const cellRun = one.cell_run;
  return (
    <Section
      title={`${trans.__('Version %1', one.version)}${aliases ? ` ${aliases}` : ''}`}
      open={props.open}
    >
      <Facts
        rows={[
          [trans.__('Registered'), trans.__('%1 by %2', moment(one.time), clean(one.by))],
          [trans.__('About'), clean(one.description)],
          [trans.__('Class'), clean(one.type)],
          [
            trans.__('Format'),
            [clean(one.format), bytes(one.size)].filter(part => part).join(', ')
          ],
          [trans.__('Bytes'), short(one.digest)],
          [
            trans.__('Made by'),
            cellRun ? (
              <button className="jp-mlops-link" onClick={() => props.go('timeline', cellRun)}>
                {trans.__('cell run %1', short(cellRun))}
              </button>
            ) : (
              trans.__('no cell run on record')
            )
          ],
          [trans.__('Tags'), pairs(one.tags)]
        ]}
      />
      <Values title={trans.__('Metrics')} of={one.metrics} open />
      <Values title={trans.__('Parameters')} of={one.parameters} />
      {one.checks.length > 0 && <Gates gates={one.checks} trans={trans} open={false} />}
      {one.training.length > 0 && (
        <Section title={trans.__('Trained on')} count={one.training.length}>
          <Facts
            rows={one.training.map(data => [
              clean(data.name),
              [clean(data.type ?? ''), short(data.digest)].filter(part => part).join(', ')
            ])}
          />
        </Section>
      )}
      {one.requirements.length > 0 && (
        <Section title={trans.__('Requirements')} count={one.requirements.length}>
          <p>{one.requirements.map(clean).join(', ')}</p>
        </Section>
      )}
      {one.gaps.length > 0 && (
        <Section title={trans.__('Not known')} count={one.gaps.length} open>
          <Facts rows={one.gaps.map(gap => [clean(gap.subject), clean(gap.reason)])} />
        </Section>
      )}
    </Section>
  );
}

function Values(props: {
  title: string;
  of: Record<string, unknown>;
  open?: boolean;
}): JSX.Element | null {
  const rows = Object.entries(props.of).sort(([one], [other]) => (one < other ? -1 : 1));
  if (!rows.length) {
    return null;
  }
  return (
    <Section title={props.title} count={rows.length} open={props.open}>
      <Facts rows={rows.map(([key, value]) => [clean(key), flat(value)])} />
    </Section>
  );
}

function pairs(tags: Record<string, string>): string {
  return Object.entries(tags)
    .map(([key, value]) => `${clean(key)}=${clean(value)}`)
    .join(', ');
}
