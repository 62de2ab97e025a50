/** All that is on record of one cell run. */
import type { TranslationBundle } from '@jupyterlab/translation';
import * as React from 'react';

import { Body, Head, Link, Plain, Verb, Verbs } from './controls';
import { codeFacts, FactList, Facts, Gaps, Packages, Section } from './parts';
import { Artifact, CellDetail } from './records';
import { bytes, clean, duration, flat, joined, mark, moment, origin, short, state } from './words';

export interface IDetailProps {
  cell: CellDetail;
  trans: TranslationBundle;
  jump: (cell: string) => void;
  has: (cell: string) => boolean;
  close: () => void;
  select: (id: string) => void;
  /** Hold it against another one, which is chosen then. */
  compare: () => void;
  /** Hold it against the run of its cell before it. */
  before: () => void;
  /** Ask for what an act with it needs; or what it asks for now. */
  ask: (act: 'slice' | 'checkout') => void;
  asked: React.ReactNode;
  /** Show where it comes from. */
  trace: (of: string) => void;
}

export function Detail(props: IDetailProps): JSX.Element {
  const { cell, trans } = props;
  const { row, run, environment, code } = cell;
  const notes = row.marks.filter(name => name !== 'gap'); // gaps are listed
  const metrics = cell.logged.filter(one => one.what !== 'artifact');
  const artifacts = cell.logged.filter(one => one.what === 'artifact');
  return (
    <>
      <Head
        title={row.count ? trans.__('Cell run [%1]', row.count) : trans.__('Cell run')}
        close={{ label: trans.__('Close the details'), go: props.close }}
      >
        <Plain
          disabled={!row.cell || !props.has(row.cell)}
          title={
            row.cell && props.has(row.cell)
              ? trans.__('Go to its cell in the notebook')
              : trans.__('Its cell is not in the notebook')
          }
          onClick={() => props.jump(row.cell)}
        >
          {trans.__('Go to cell')}
        </Plain>
      </Head>
      <Body label={trans.__('What is on record of it')}>
        <Verbs label={trans.__('What can be done with it')}>
          <Verb
            title={trans.__('Choose another cell run, and see what is different')}
            onClick={props.compare}
          >
            {trans.__('Compare with…')}
          </Verb>
          {row.cell && (
            <Verb
              title={trans.__('See what is different since its cell ran before')}
              onClick={props.before}
            >
              {trans.__('Compare with before')}
            </Verb>
          )}
          <Verb
            title={trans.__('Write the smallest notebook that makes what it made')}
            onClick={() => props.ask('slice')}
          >
            {trans.__('Slice…')}
          </Verb>
          <Verb
            title={trans.__('Write its code and files, as they were, into a folder')}
            onClick={() => props.ask('checkout')}
          >
            {trans.__('Check out…')}
          </Verb>
          <Verb
            title={trans.__('Show what it builds on, as a graph')}
            onClick={() => props.trace(row.id)}
          >
            {trans.__('Lineage')}
          </Verb>
        </Verbs>
        {props.asked}
        <Facts
          rows={[
            [trans.__('State'), state(row.status, trans)],
            [trans.__('Started'), moment(row.time)],
            [
              trans.__('Took'),
              row.status === 'running'
                ? ''
                : trans.__('%1, recording it %2', duration(row.seconds), duration(cell.overhead))
            ],
            [trans.__('Name'), clean(row.label)],
            [trans.__('Tickets'), cell.tickets.map(one => clean(one.id)).join(' ')],
            [
              trans.__('Run'),
              run
                ? joined([
                    origin(run.trigger, trans),
                    clean(run.user),
                    run.status === 'running' ? '' : state(run.status, trans)
                  ])
                : short(row.run)
            ],
            [trans.__('Record'), short(row.id)]
          ]}
        />
        {notes.length > 0 && (
          <ul className="jp-mlops-notes">
            {notes.map(name => (
              <li key={name}>
                <b>{mark(name, trans)[0]}</b> {mark(name, trans)[1]}
              </li>
            ))}
          </ul>
        )}
        {cell.error && (
          <Section title={trans.__('Error')} open>
            <pre className="jp-mlops-error">{clean(cell.error)}</pre>
          </Section>
        )}
        <Gaps gaps={cell.gaps} title={trans.__('Not known')} open />
        <Section title={trans.__('Code')} open>
          <pre>{clean(cell.source) || trans.__('(no code on record)')}</pre>
        </Section>
        <FactList
          title={trans.__('Metrics and parameters')}
          rows={metrics.map(one => [
            clean(one.key),
            one.values.length > 1
              ? trans.__(
                  '%1 (last of %2)',
                  flat(one.values[one.values.length - 1]),
                  one.values.length
                )
              : flat(one.values[0])
          ])}
          open
        />
        <Artifacts title={trans.__('Made')} of={cell.outputs} {...props} />
        <Artifacts title={trans.__('Read')} of={cell.inputs} {...props} />
        <Artifacts title={trans.__('Files written')} of={cell.files_written} {...props} />
        <Artifacts title={trans.__('Files read')} of={cell.files_read} {...props} />
        <Artifacts title={trans.__('Sources')} of={cell.sources} {...props} />
        <FactList
          title={trans.__('Logged artifacts')}
          rows={artifacts.map(one => [clean(one.key), one.values.map(flat).join(', ')])}
        />
        {cell.removed.length > 0 && (
          <Section title={trans.__('Removed')} count={cell.removed.length}>
            <p>{cell.removed.map(clean).join(', ')}</p>
          </Section>
        )}
        {Object.keys(cell.randomness).length > 0 && (
          <Section title={trans.__('Random numbers')}>
            <Facts
              rows={Object.entries(cell.randomness).map(([name, how]) => [clean(name), clean(how)])}
            />
          </Section>
        )}
        <Artifacts title={trans.__('Shown')} of={cell.displays} {...props} />
        <Artifacts title={trans.__('Local modules')} of={cell.modules} {...props} />
        {code && (
          <Section title={trans.__('State of the code')}>
            <Facts rows={codeFacts(code, trans)} />
          </Section>
        )}
        {environment && (
          <Section title={trans.__('Environment')}>
            <Facts
              rows={[
                [trans.__('Python'), clean(environment.python ?? '')],
                [trans.__('Platform'), clean(environment.platform ?? '')],
                [trans.__('GPU'), (environment.gpus ?? []).map(clean).join(', ')]
              ]}
            />
            <Packages of={environment.packages ?? []} trans={trans} />
          </Section>
        )}
      </Body>
    </>
  );
}

function Artifacts(props: IDetailProps & { title: string; of: Artifact[] }): JSX.Element | null {
  const { trans, of } = props;
  if (!of.length) {
    return null;
  }
  return (
    <Section title={props.title} count={of.length} open={of.length <= 12}>
      <ul className="jp-mlops-artifacts">
        {of.map((one, at) => (
          <li key={at}>
            <span className="jp-mlops-name">{clean(one.name)}</span>
            <span className="jp-mlops-dim">{joined([clean(one.type ?? ''), bytes(one.size)])}</span>
            <span className="jp-mlops-dim" title={one.digest ? clean(one.digest) : ''}>
              {one.digest ? short(one.digest) : clean(one.why ?? '') || trans.__('no digest')}
            </span>
            {one.made && one.made !== props.cell.row.id && (
              <Link
                title={trans.__('Show the cell run that made it')}
                onClick={() => props.select(one.made ?? '')}
              >
                {trans.__('made by %1', short(one.made))}
              </Link>
            )}
          </li>
        ))}
      </ul>
    </Section>
  );
}
