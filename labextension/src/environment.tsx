/** What a notebook's session stands in, and what changed in it since another run. */
import type { TranslationBundle } from '@jupyterlab/translation';
import * as React from 'react';

import { Act } from './acts';
import { useRecord } from './asking';
import { Order, Refused } from './client';
import { Changes, Environments, Lines } from './difference';
import { start } from './jobs';
import { Body, Link, Verb, Verbs } from './controls';
import { codeFacts, Facts, Gaps, Notice, Packages, Section, Waiting } from './parts';
import { CodeState, Environment, EnvironmentAnswer, Gap, Job, RunRow } from './records';
import type { ITab, ITabProps } from './tabs';
import { bytes, clean, duration, joined, moment, origin, short } from './words';

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
      <Body label={trans.__('The environment on record')}>
        <Notice problem={problem} trans={trans} />
        {found && <Changed found={found} trans={trans} />}
        {found && <Making key={old} {...props} found={found} />}
        {found && (
          <Now
            environment={found.new.environment}
            code={found.new.code}
            of={found.new.run}
            trans={trans}
          />
        )}
      </Body>
    </div>
  );
}

function named(run: RunRow, trans: TranslationBundle): string {
  const name = clean(run.notebook.split('/').pop() ?? '') || trans.__('no notebook');
  return [moment(run.time), origin(run.trigger, trans), name].join(' · ');
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
            [trans.__('Platform'), joined([clean(one.platform ?? ''), clean(one.machine ?? '')])],
            [
              trans.__('Processor'),
              joined([
                clean(one.cpu ?? ''),
                one.cores ? trans._n('%1 core', '%1 cores', one.cores) : '',
                bytes(one.memory)
              ])
            ],
            [trans.__('GPU'), (one.gpus ?? []).map(clean).join(', ')],
            ...codeFacts(code, trans)
          ]}
        />
      )}
      <Packages of={one?.packages ?? []} trans={trans} />
      <Gaps gaps={one?.gaps ?? []} title={trans.__('Not known')} open />
    </Section>
  );
}

/** What can be done with the environment of this session, or with that of the run that was chosen. */
function Making(props: ITabProps & { found: EnvironmentAnswer }): JSX.Element {
  const { trans, found } = props;
  const [verb, setVerb] = React.useState<'lock' | 'create' | null>(null);
  const box = React.useRef<HTMLDivElement>(null);
  const close = () => {
    setVerb(null);
    box.current?.querySelector('button')?.focus();
  };
  const of = (found.old ?? found.new).run;
  return (
    <div ref={box}>
      <Verbs label={trans.__('What can be done with the environment of %1', moment(of.time))}>
        <Verb
          title={trans.__('Write exactly what it used, every file by its hash')}
          onClick={() => setVerb('lock')}
        >
          {trans.__('Lock…')}
        </Verb>
        <Verb
          title={trans.__('Make a virtual environment with a kernel from what it used')}
          onClick={() => setVerb('create')}
        >
          {trans.__('Create…')}
        </Verb>
      </Verbs>
      {verb === 'lock' && <Lock {...props} of={of} close={close} />}
      {verb === 'create' && <Create {...props} of={of} close={close} />}
    </div>
  );
}

interface IMadeProps extends ITabProps {
  of: RunRow;
  close: () => void;
}

function Lock(props: IMadeProps): JSX.Element {
  const { book, trans, of } = props;
  return (
    <Act
      trans={trans}
      title={trans.__('Lock what the run of %1 used', moment(of.time))}
      verb={trans.__('Lock')}
      fields={[
        {
          name: 'output',
          label: trans.__('Lock'),
          value: book.beside('pylock.toml'),
          required: true,
          pattern: '(.*/)?pylock(\\.[^.\\s/]+)?\\.toml',
          hint: trans.__(
            'Named pylock.toml or pylock.NAME.toml, in the folder that this server shows'
          )
        },
        { name: 'requirements', label: trans.__('Write a requirements.txt too'), kind: 'tick' },
        {
          name: 'everything',
          label: trans.__('All that was installed, not only what was used'),
          kind: 'tick'
        },
        { name: 'offline', label: trans.__('Ask no index'), kind: 'tick' },
        { name: 'replace', label: trans.__('Replace files that are there'), kind: 'tick' }
      ]}
      act={async (given, show) => {
        const output = given.output.trim();
        const job = await followed(
          props,
          {
            verb: 'lock',
            sent: {
              what: of.id,
              output,
              requirements: given.requirements === 'yes',
              everything: given.everything === 'yes',
              offline: given.offline === 'yes',
              replace: given.replace === 'yes'
            }
          },
          show
        );
        const made = job.answer as { packages?: unknown[]; gaps?: Gap[] } | null;
        return (
          <>
            <div>
              {trans._n(
                '%1 package is locked:',
                '%1 packages are locked:',
                made?.packages?.length ?? 0
              )}{' '}
              <Link onClick={() => props.openFile(book.onDrive(output))}>{clean(output)}</Link>
            </div>
            <Gaps gaps={made?.gaps ?? []} title={trans.__('Not known')} open />
          </>
        );
      }}
      close={props.close}
    />
  );
}

function Create(props: IMadeProps): JSX.Element {
  const { book, trans, of } = props;
  return (
    <Act
      trans={trans}
      title={trans.__('Create the environment of the run of %1', moment(of.time))}
      verb={trans.__('Create')}
      fields={[
        {
          name: 'folder',
          label: trans.__('Folder'),
          value: book.beside(`env-${short(of.id).slice(0, 6)}`),
          required: true,
          hint: trans.__('New or empty, in the folder that this server shows')
        },
        {
          name: 'kernel',
          label: trans.__('Kernel'),
          pattern: '[A-Za-z0-9._\\-]{0,100}',
          hint: trans.__(
            'A name, to have its kernel among yours; else it is in that environment alone'
          )
        },
        { name: 'offline', label: trans.__('Ask no index'), kind: 'tick' },
        { name: 'download', label: trans.__('Download Python if none here fits'), kind: 'tick' }
      ]}
      act={async (given, show) => {
        const folder = given.folder.trim();
        const job = await followed(
          props,
          {
            verb: 'create',
            sent: {
              what: of.id,
              folder,
              kernel: given.kernel.trim(),
              offline: given.offline === 'yes',
              download: given.download === 'yes'
            }
          },
          show
        );
        const made = job.answer as { kernel?: string; differs?: string[]; gaps?: Gap[] } | null;
        const differs = made?.differs ?? [];
        return (
          <>
            <div>
              {trans.__('It is in %1.', clean(folder))}{' '}
              {made?.kernel && trans.__('Its kernel is %1.', clean(made.kernel))}
            </div>
            {differs.length > 0 ? (
              <Section
                title={trans.__('It differs from what was locked')}
                count={differs.length}
                open
              >
                <Lines
                  lines={differs.map(line => line.replace(/^~/, '@'))}
                  label={trans.__('How it differs')}
                />
              </Section>
            ) : (
              <div>{trans.__('Read back, every package is the locked one.')}</div>
            )}
            <Gaps gaps={made?.gaps ?? []} title={trans.__('Not known')} open />
          </>
        );
      }}
      close={props.close}
    />
  );
}

/** Have a job done, show how far it is, and give it when it is over; what was not done is why. */
async function followed(
  props: ITabProps,
  order: Order,
  show: (now: React.ReactNode) => void
): Promise<Job> {
  const { book, trans } = props;
  const one = await start(book.client, book.path, order);
  const tell = () =>
    show(
      <div className="jp-mlops-note" role="status">
        <div>{trans.__('For %1', duration(one.job.seconds))}</div>
        <div className="jp-mlops-dim">{clean(one.job.said[one.job.said.length - 1] ?? '')}</div>
        <Verb onClick={() => void one.interrupt()}>{trans.__('Interrupt')}</Verb>
      </div>
    );
  one.changed.connect(tell);
  tell();
  try {
    const job = await one.ended;
    if (job.state === 'done' || job.state === 'no') {
      return job;
    }
    const said = job.said.slice(-5).join(' ');
    throw job.state === 'interrupted'
      ? new Refused('Interrupted', trans.__('It was interrupted.'))
      : new Refused('Failed', said || trans.__('It failed, and did not say why.'), '', job.command);
  } finally {
    one.dispose();
  }
}
