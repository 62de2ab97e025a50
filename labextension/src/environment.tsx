/** What a notebook's session stands in, and what changed in it since another run. */
import type { TranslationBundle } from '@jupyterlab/translation';
import * as React from 'react';

import { useRecord } from './asking';
import { Changes, Environments } from './difference';
import { Facts, Gaps, Section, Waiting } from './parts';
import { CodeState, Environment, EnvironmentAnswer, RunRow } from './records';
import type { ITab, ITabProps } from './tabs';
import { bytes, clean, moment, refusal } from './words';

export const environment: ITab = {
  name: 'environment',
  label: trans => trans.__('Environment'),
  body: Surroundings
};

/** Runs among which one is chosen. */
const MOST = 200;

function Surroundings(props: ITabProps): JSX.Element {
  const { book, trans } = props;
  const overview = book.overview;
  const mark = overview?.mark;
  const own = book.split === null ? (book.link.hello?.run ?? '') : '';
  const [runs, noRuns] = useRecord(mark, () => book.client.runs(book.path, '', 0, MOST), [
    book,
    book.path
  ]);
  const [chosen, setChosen] = React.useState('');
  const others = (runs?.runs ?? []).filter(one => one.id !== own);
  const old = others.some(one => one.id === chosen) ? chosen : '';
  const [found, problem] = useRecord<EnvironmentAnswer>(
    mark,
    () => book.client.environment(book.path, old, own),
    [book, book.path, old, own]
  );
  if (!runs || (!found && !problem)) {
    return <Waiting problem={noRuns} trans={trans} />;
  }
  return (
    <div className="jp-mlops-whole">
      <div className="jp-mlops-filter">
        <label className="jp-mlops-choice">
          {trans.__('Changed since')}
          <select value={old} onChange={event => setChosen(event.target.value)}>
            <option value="">{trans.__('(choose a run)')}</option>
            {others.map(one => (
              <option key={one.id} value={one.id}>
                {named(one, trans)}
              </option>
            ))}
          </select>
        </label>
      </div>
      <div
        className="jp-mlops-detail-body"
        tabIndex={0}
        role="group"
        aria-label={trans.__('The environment on record')}
      >
        {problem && (
          <div className="jp-mlops-problem" role="alert">
            {refusal(problem, trans)
              .filter(part => part)
              .join(' ')}
          </div>
        )}
        {found && <Changed found={found} trans={trans} />}
        {found && (
          <Now
            environment={found.new.environment}
            code={found.new.code}
            of={found.new.run}
            trans={trans}
          />
        )}
      </div>
    </div>
  );
}

function named(run: RunRow, trans: TranslationBundle): string {
  const name = clean(run.notebook.split('/').pop() ?? '') || trans.__('no notebook');
  const how = run.trigger === 'session' ? trans.__('session') : clean(run.trigger);
  return `${moment(run.time)} · ${name} · ${how}`;
}

function Changed(props: {
  found: EnvironmentAnswer;
  trans: TranslationBundle;
}): JSX.Element | null {
  const { found, trans } = props;
  const { difference, old } = found;
  if (!old) {
    return null;
  }
  const count =
    difference.facts.length +
    difference.added.length +
    difference.removed.length +
    difference.changed.length +
    difference.variables.length;
  const said: string[] = [];
  if (!found.known) {
    said.push(
      old.environment
        ? trans.__('No environment is on record of what runs now.')
        : trans.__('No environment is on record of that run.')
    );
  } else if (count === 0) {
    said.push(trans.__('The same environment.'));
  }
  if (!old.code || !found.new.code) {
    said.push(trans.__('The state of the code is not on record of both: it is not compared.'));
  } else if (found.code.length === 0) {
    said.push(trans.__('The same state of the code.'));
  }
  return (
    <>
      {said.map((text, at) => (
        <p key={at} role="status">
          {text}
        </p>
      ))}
      <Environments change={difference} trans={trans} />
      {found.code.length > 0 && (
        <Section title={trans.__('State of the code')} count={found.code.length} open>
          <Changes changes={found.code} trans={trans} />
        </Section>
      )}
    </>
  );
}

function Now(props: {
  environment: Environment | null;
  code: CodeState | null;
  of: RunRow;
  trans: TranslationBundle;
}): JSX.Element {
  const { environment: one, code, of, trans } = props;
  const packages = one?.packages ?? [];
  const dirty = code?.dirty ?? [];
  return (
    <Section title={trans.__('As of %1', moment(of.time))} open>
      {!one && <p>{trans.__('No environment is on record of what runs now.')}</p>}
      {one && (
        <Facts
          rows={[
            [
              trans.__('Python'),
              [one.python, one.implementation].map(part => clean(part ?? '')).join(' ')
            ],
            [
              trans.__('Platform'),
              [one.platform, one.machine]
                .filter(part => part)
                .map(part => clean(part ?? ''))
                .join(', ')
            ],
            [
              trans.__('Processor'),
              [
                clean(one.cpu ?? ''),
                one.cores ? trans._n('%1 core', '%1 cores', one.cores) : '',
                bytes(one.memory)
              ]
                .filter(part => part)
                .join(', ')
            ],
            [trans.__('GPU'), (one.gpus ?? []).map(clean).join(', ')],
            [trans.__('Commit'), clean(code?.commit ?? '').slice(0, 12)],
            [trans.__('Branch'), clean(code?.branch ?? '')],
            [trans.__('Changed files'), dirty.map(file => clean(file.name)).join(', ')]
          ]}
        />
      )}
      {packages.length > 0 && (
        <Section title={trans.__('Packages')} count={packages.length}>
          <Facts
            rows={packages.map(item => [
              clean(item.name),
              item.loaded && item.loaded !== item.version
                ? trans.__('%1 installed, %2 loaded', clean(item.version), clean(item.loaded))
                : clean(item.version)
            ])}
          />
        </Section>
      )}
      <Gaps gaps={one?.gaps ?? []} title={trans.__('Not known')} open />
    </Section>
  );
}
