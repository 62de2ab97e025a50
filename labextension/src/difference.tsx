/** What is different between two cell runs, or two versions of a model. */
import type { TranslationBundle } from '@jupyterlab/translation';
import * as React from 'react';

import { FactList, Facts, Notes, Section } from './parts';
import { Change, DifferenceAnswer, EnvironmentChange, Package, Side, ValueChange } from './records';
import { clean, flat, joined, moment, short } from './words';

export interface IDifferenceProps {
  found: DifferenceAnswer;
  trans: TranslationBundle;
}

/** What is said of a content in more than that it is another one. */
const CONTENTS = new Set(['read', 'made', 'file read', 'file written']);

export function Difference({ found, trans }: IDifferenceProps): JSX.Element {
  const told = new Set(found.values.map(one => `${one.what} ${one.name}`));
  const changes = found.changes.filter(one => !told.has(`${one.what} ${one.name}`));
  return (
    <>
      <Facts
        rows={[
          [trans.__('Before'), side(found.old)],
          [trans.__('After'), side(found.new)]
        ]}
      />
      {found.same && (
        <p role="status">
          {found.unknown.length
            ? trans.__('No difference is on record.')
            : trans.__('There is no difference.')}
        </p>
      )}
      {found.source.length > 0 && (
        <Section title={trans.__('Code')} open>
          <Lines lines={found.source} label={trans.__('How the code differs')} />
        </Section>
      )}
      {groups(changes, trans).map(([title, of]) => (
        <Section key={title} title={title} count={of.length} open>
          <Changes changes={of} trans={trans} />
        </Section>
      ))}
      {found.values.length > 0 && (
        <Section title={trans.__('Other contents')} count={found.values.length} open>
          {found.values.map((one, at) => (
            <Value key={at} value={one} trans={trans} />
          ))}
        </Section>
      )}
      <FactList
        title={trans.__('Cells that differ')}
        rows={found.cells.map(one => [
          clean(one.source.split('\n').find(line => line.trim()) ?? one.cell),
          one.differs.map(clean).join(', ')
        ])}
        open
      />
      {found.environment && <Environments change={found.environment} trans={trans} />}
      <Notes title={trans.__('Not compared')} of={found.unknown} open />
    </>
  );
}

function side(one: Side): JSX.Element {
  const count = one.count ? `[${one.count}] ` : '';
  return (
    <span title={clean(one.id)}>
      {`${count}${clean(one.title)}`} <span className="jp-mlops-dim">{moment(one.time)}</span>
    </span>
  );
}

/** Lines of a unified diff, told apart by their first character and not by colour alone. */
export function Lines(props: { lines: string[]; label: string }): JSX.Element {
  return (
    <pre className="jp-mlops-lines" tabIndex={0} role="group" aria-label={props.label}>
      {props.lines.map((line, at) => {
        const kind = { '+': 'new', '-': 'old', '@': 'place' }[line[0]] ?? 'same';
        return (
          <span key={at} className={`jp-mod-${kind}`}>
            {clean(line)}
            {'\n'}
          </span>
        );
      })}
    </pre>
  );
}

/** Changes by what they are of, in the order in which they are told. */
function groups(changes: Change[], trans: TranslationBundle): [string, Change[]][] {
  const found = new Map<string, Change[]>();
  for (const one of changes) {
    const title = kind(one.what, trans);
    found.set(title, [...(found.get(title) ?? []), one]);
  }
  return [...found];
}

function kind(what: string, trans: TranslationBundle): string {
  switch (what) {
    case 'read':
      return trans.__('Read');
    case 'made':
      return trans.__('Made');
    case 'file read':
      return trans.__('Files read');
    case 'file written':
      return trans.__('Files written');
    case 'metric':
      return trans.__('Metrics');
    case 'parameter':
      return trans.__('Parameters');
    case 'status':
      return trans.__('State');
    case 'code':
    case 'changed file':
    case 'module':
      return trans.__('State of the code');
    case 'model':
      return trans.__('Model');
    case 'training data':
      return trans.__('Training data');
    case 'requirement':
      return trans.__('Requirements');
  }
  return clean(what) || trans.__('Others');
}

/** One by one: what it was, and what it is. */
export function Changes(props: { changes: Change[]; trans: TranslationBundle }): JSX.Element {
  const { changes, trans } = props;
  return (
    <table className="jp-mlops-changes">
      <thead>
        <tr>
          <th scope="col">{trans.__('What')}</th>
          <th scope="col">{trans.__('Before')}</th>
          <th scope="col">{trans.__('After')}</th>
        </tr>
      </thead>
      <tbody>
        {changes.map((one, at) => (
          <tr key={at}>
            <th scope="row">{clean(one.name) || kind(one.what, trans)}</th>
            <td>{content(one.old, one, trans)}</td>
            <td>{content(one.new, one, trans)}</td>
          </tr>
        ))}
      </tbody>
    </table>
  );
}

const DIGEST = /[a-z0-9-]{1,20}:[0-9a-f]{32,128}/g;

function content(value: unknown, of: Change, trans: TranslationBundle): string {
  if (value === null || value === undefined) {
    return CONTENTS.has(of.what) ? trans.__('not there') : '—';
  }
  const text = flat(value).replace(DIGEST, digest => short(digest));
  return of.what === 'code' && of.name === 'commit' ? text.slice(0, 12) : text;
}

function Value({ value, trans }: { value: ValueChange; trans: TranslationBundle }): JSX.Element {
  return (
    <div className="jp-mlops-value">
      <div>
        <span className="jp-mlops-name">{clean(value.name)}</span>{' '}
        <span className="jp-mlops-dim">{kind(value.what, trans)}</span>
      </div>
      {value.changes.length > 0 && <Changes changes={value.changes} trans={trans} />}
      {value.unknown.map((reason, at) => (
        <div key={at} className="jp-mlops-dim">
          {clean(reason)}
        </div>
      ))}
    </div>
  );
}

/** How two environments differ; nothing where they do not. */
export function Environments(props: {
  change: EnvironmentChange;
  trans: TranslationBundle;
}): JSX.Element {
  const { change, trans } = props;
  const packages: Change[] = [
    ...change.changed.map(one => ({
      what: 'package',
      name: one.new.name,
      old: version(one.old, trans),
      new: version(one.new, trans)
    })),
    ...change.added.map(one => ({
      what: 'package',
      name: one.name,
      old: trans.__('not there'),
      new: version(one, trans)
    })),
    ...change.removed.map(one => ({
      what: 'package',
      name: one.name,
      old: version(one, trans),
      new: trans.__('not there')
    }))
  ];
  return (
    <>
      {change.facts.length > 0 && (
        <Section title={trans.__('Python and machine')} count={change.facts.length} open>
          <Changes changes={change.facts} trans={trans} />
        </Section>
      )}
      {packages.length > 0 && (
        <Section title={trans.__('Packages')} count={packages.length} open>
          <Changes changes={packages} trans={trans} />
        </Section>
      )}
      {change.variables.length > 0 && (
        <Section title={trans.__('Variables')} count={change.variables.length} open>
          <Changes changes={change.variables} trans={trans} />
        </Section>
      )}
    </>
  );
}

function version(one: Package, trans: TranslationBundle): string {
  const more = joined([one.loaded ? trans.__('%1 loaded', one.loaded) : '', one.origin]);
  return one.version + (more ? ` (${more})` : '');
}
