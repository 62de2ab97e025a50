/** What a notebook's session stands in, and what changed in it since another run. */
import type { TranslationBundle } from '@jupyterlab/translation';
import * as React from 'react';

import { Act } from './acts';
import { useRecord } from './asking';
import { Order, Refused } from './client';
import { Changes, Environments, Lines } from './difference';
import { start } from './jobs';
import { Facts, Gaps, Section, Waiting } from './parts';
import { CodeState, Environment, EnvironmentAnswer, Gap, Job, RunRow } from './records';
import type { ITab, ITabProps } from './tabs';
import { bytes, clean, duration, moment, refusal, short } from './words';

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
        {found && <Verbs key={old} {...props} found={found} />}
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

/** What can be done with the environment of this session, or with that of the run that was chosen. */
function Verbs(props: ITabProps & { found: EnvironmentAnswer }): JSX.Element {
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
      <div
        className="jp-mlops-verbs"
        role="group"
        aria-label={trans.__('What can be done with the environment of %1', moment(of.time))}
      >
        <button
          className="jp-mod-styled"
          title={trans.__('Write exactly what it used, every file by its hash')}
          onClick={() => setVerb('lock')}
        >
          {trans.__('Lock…')}
        </button>
        <button
          className="jp-mod-styled"
          title={trans.__('Make a virtual environment with a kernel from what it used')}
          onClick={() => setVerb('create')}
        >
          {trans.__('Create…')}
        </button>
      </div>
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
          value: beside(book.path, 'pylock.toml'),
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
              <button
                type="button"
                className="jp-mlops-link"
                onClick={() => props.openFile(book.onDrive(output))}
              >
                {clean(output)}
              </button>
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
          value: beside(book.path, `env-${short(of.id).slice(0, 6)}`),
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

/** A name in a notebook's folder. */
function beside(path: string, name: string): string {
  const folder = path.split('/').slice(0, -1).join('/');
  return folder ? `${folder}/${name}` : name;
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
        <button type="button" className="jp-mod-styled" onClick={() => void one.interrupt()}>
          {trans.__('Interrupt')}
        </button>
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
