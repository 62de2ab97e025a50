/** The project's models: their versions, the names that point to them, the gates that were asked, and what can be done. */
import type { TranslationBundle } from '@jupyterlab/translation';
import * as React from 'react';

import { Act, Given, IField, tickets } from './acts';
import { useRecord } from './asking';
import { Difference } from './difference';
import { Gates } from './gates';
import { Facts, Gaps, Section, Waiting } from './parts';
import { AliasRow, Demands, ModelDetail, ModelRow, Step, VersionRow } from './records';
import { MODEL, registration, VARIABLE } from './register';
import type { ITab, ITabProps } from './tabs';
import { bytes, clean, flat, moment, short, when } from './words';

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
  const [registering, setRegistering] = React.useState(false);
  const back = React.useRef<HTMLDivElement>(null);
  const focus = () =>
    requestAnimationFrame(() => back.current?.querySelector<HTMLElement>('button')?.focus());
  if (!found) {
    return <Waiting problem={problem} trans={trans} />;
  }
  if (chosen !== null && found.models.some(one => one.name === chosen)) {
    return (
      <Model
        {...props}
        name={chosen}
        close={() => {
          setChosen(null);
          focus();
        }}
      />
    );
  }
  return (
    <div ref={back} className="jp-mlops-whole jp-mlops-scroll">
      <RegisterButton {...props} start={() => setRegistering(true)} />
      {registering && (
        <Register
          {...props}
          name=""
          demands={found.demands}
          close={() => {
            setRegistering(false);
            focus();
          }}
        />
      )}
      {found.models.length === 0 && !registering && (
        <div className="jp-mlops-empty" role="status">
          <h3>{trans.__('No model is registered yet')}</h3>
          <p>{trans.__('In the cell that made one:')}</p>
          <code>%mlops register VARIABLE NAME</code>
        </div>
      )}
      {found.models.length > 0 && (
        <ul className="jp-mlops-models" aria-label={trans.__('Models')}>
          {found.models.map(one => (
            <li key={one.name}>
              <button className="jp-mlops-model" onClick={() => setChosen(one.name)}>
                <ModelHead model={one} trans={trans} />
              </button>
            </li>
          ))}
        </ul>
      )}
    </div>
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

/** Only a kernel that records has the object, and knows where it comes from. */
function RegisterButton(props: ITabProps & { start: () => void }): JSX.Element {
  const { book, trans } = props;
  const can = book.link.hello?.recording === true;
  return (
    <div className="jp-mlops-verbs">
      <button
        className="jp-mod-styled"
        aria-disabled={!can}
        title={
          can
            ? trans.__("Keep a variable of this notebook's kernel as a version of a model")
            : trans.__('The kernel does not record: run %load_ext jupyter_mlops in a cell first')
        }
        onClick={() => can && props.start()}
      >
        {trans.__('Register a model…')}
      </button>
    </div>
  );
}

/** Has the kernel register a variable, with the words that a cell would have. */
function Register(
  props: ITabProps & { name: string; demands?: Demands; close: () => void }
): JSX.Element {
  const { book, trans, close } = props;
  const own = book.link.hello?.run;
  const made = new Set<string>();
  for (const row of [...book.cells.values()].reverse()) {
    if (row.run === own) {
      row.made.filter(name => /^[\p{L}_][\p{L}\p{N}_]*$/u.test(name)).forEach(one => made.add(one));
    }
  }
  const known = [...made];
  return (
    <Act
      trans={trans}
      title={trans.__('Register a model')}
      verb={trans.__('Register')}
      fields={[
        {
          name: 'variable',
          label: trans.__('Variable'),
          known,
          required: true,
          pattern: VARIABLE,
          hint: trans.__('A fitted model in this notebook’s kernel')
        },
        {
          name: 'name',
          label: trans.__('Model'),
          value: props.name,
          required: true,
          pattern: MODEL,
          hint: trans.__(
            'Up to 100 letters, digits, “.”, “_” and “-”; a known name gets its next version'
          )
        },
        {
          name: 'data',
          label: trans.__('Trained on'),
          known,
          pattern: `\\s*${VARIABLE}\\s*(,\\s*${VARIABLE}\\s*)?`,
          hint: trans.__(
            'Variables, as X,y: for what it takes and gives. Found by itself where only one fits'
          )
        },
        { name: 'description', label: trans.__('Description'), kind: 'text' },
        {
          name: 'tags',
          label: trans.__('Tags'),
          pattern: '\\s*([^,=]+=[^,]*(,\\s*[^,=]+=[^,]*)*)?',
          hint: trans.__('As stage=trial, team=ops')
        },
        ...why(trans, () => props.demands?.register)
      ]}
      act={async given => {
        const said = await book.link.run(
          registration({
            variable: given.variable.trim(),
            name: given.name.trim(),
            data: given.data,
            description: given.description,
            tags: given.tags,
            reason: given.reason,
            tickets: tickets(given.tickets)
          })
        );
        await book.refresh();
        const number = /^models:\/[^/\s]+\/(\d+)$/m.exec(said)?.[1];
        return (
          <>
            {number && (
              <b>{trans.__('Registered as %1, version %2.', clean(given.name.trim()), number)}</b>
            )}
            <Section title={trans.__('What the kernel answered')} open={!number}>
              <pre className="jp-mlops-said">{clean(said)}</pre>
            </Section>
          </>
        );
      }}
      close={close}
    />
  );
}

/** What is being asked for: one form at a time. */
type Wish =
  | { verb: 'check' | 'promote' | 'approve' | 'withdraw' | 'compare'; version: number }
  | { verb: 'rollback'; alias: string }
  | { verb: 'register' };

interface IModelProps extends ITabProps {
  name: string;
  model: ModelDetail;
  wish: Wish | null;
  setWish: (wish: Wish | null) => void;
}

function Model(props: ITabProps & { name: string; close: () => void }): JSX.Element {
  const { book, trans, name } = props;
  const [model, problem] = useRecord<ModelDetail>(
    book.overview?.mark,
    () => book.client.model(book.path, name),
    [book, book.path, name]
  );
  const [wish, setWish] = React.useState<Wish | null>(null);
  const body = React.useRef<HTMLDivElement>(null);
  const more = model && {
    ...props,
    model,
    wish,
    setWish: (to: Wish | null) => {
      setWish(to);
      if (to === null) {
        body.current?.focus();
      }
    }
  };
  return (
    <section className="jp-mlops-whole" aria-label={trans.__('Model %1', clean(name))}>
      <div className="jp-mlops-detail-head">
        <h3>{clean(name)}</h3>
        <button className="jp-mlops-plain" autoFocus onClick={props.close}>
          {trans.__('All models')}
        </button>
      </div>
      <div
        ref={body}
        className="jp-mlops-detail-body"
        tabIndex={0}
        role="group"
        aria-label={trans.__('What is on record of it')}
      >
        {(!model || problem) && <Waiting problem={problem} trans={trans} />}
        {model?.unreadable && (
          <div className="jp-mlops-problem" role="alert">
            {clean(model.unreadable)}
          </div>
        )}
        {more && (
          <>
            <RegisterButton {...props} start={() => setWish({ verb: 'register' })} />
            {wish?.verb === 'register' && (
              <Register {...more} demands={more.model.demands} close={() => more.setWish(null)} />
            )}
            {more.model.aliases.map(alias => (
              <Alias key={alias.alias} alias={alias} {...more} />
            ))}
            {more.model.versions.map((version, at) => (
              <Version key={version.version} version={version} first={at === 0} {...more} />
            ))}
          </>
        )}
      </div>
    </section>
  );
}

function Alias(props: IModelProps & { alias: AliasRow }): JSX.Element {
  const { alias, trans, wish } = props;
  const to = alias.version === null ? trans.__('nothing') : trans.__('version %1', alias.version);
  return (
    <Section title={`@${clean(alias.alias)} → ${to}`} open>
      {alias.version !== null && (
        <div className="jp-mlops-verbs">
          <button
            className="jp-mod-styled"
            aria-label={trans.__('Roll back @%1', clean(alias.alias))}
            title={trans.__('Point it to the version it pointed to before')}
            onClick={() => props.setWish({ verb: 'rollback', alias: alias.alias })}
          >
            {trans.__('Roll back…')}
          </button>
        </div>
      )}
      {wish?.verb === 'rollback' && wish.alias === alias.alias && (
        <RollBack key={alias.alias} {...props} />
      )}
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
      {step.lacking?.includes('reason') && <div>{trans.__('No reason was given')}</div>}
      {step.lacking?.includes('ticket') && <div>{trans.__('No ticket was given')}</div>}
      {step.checks.length > 0 && <Gates gates={step.checks} trans={trans} open={step.refused} />}
    </>
  );
}

function Version(props: IModelProps & { version: VersionRow; first: boolean }): JSX.Element {
  const { version: one, model, trans, wish } = props;
  const aliases = one.aliases.map(alias => `@${clean(alias)}`).join(' ');
  const cellRun = one.cell_run;
  const given = one.approvals.filter(word => !word.withdrawn);
  const form = wish && 'version' in wish && wish.version === one.version ? wish.verb : null;
  const earlier = model.versions.find(other => other.version < one.version);
  return (
    <Section
      title={`${trans.__('Version %1', one.version)}${aliases ? ` ${aliases}` : ''}`}
      open={props.first}
    >
      <Verbs {...props} />
      {form === 'check' && <CheckGates key="check" {...props} />}
      {form === 'promote' && <Promote key="promote" {...props} />}
      {(form === 'approve' || form === 'withdraw') && (
        <Approve key={form} {...props} withdraw={form === 'withdraw'} />
      )}
      {form === 'compare' && earlier && <Versions {...props} old={earlier.id} />}
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
          [
            trans.__('Comes from'),
            cellRun ? (
              <button
                className="jp-mlops-link"
                title={trans.__('Show what it builds on, as a graph')}
                onClick={() => props.go('lineage', `models:/${model.name}/${one.version}`)}
              >
                {trans.__('Lineage')}
              </button>
            ) : (
              ''
            )
          ],
          [trans.__('Tags'), pairs(one.tags)],
          [
            trans.__('Approved'),
            given
              .map(word =>
                trans.__('by %1, %2: %3', clean(word.by), when(word.time), clean(word.reason))
              )
              .join('; ')
          ]
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
      <Gaps gaps={one.gaps} title={trans.__('Not known')} open />
    </Section>
  );
}

/** What can be done with a version. */
function Verbs(props: IModelProps & { version: VersionRow }): JSX.Element {
  const { book, trans, name, model, version: one } = props;
  const [said, setSaid] = React.useState('');
  const copy = async () => {
    setSaid('');
    try {
      const { markdown } = await book.client.card(book.path, name, one.version);
      await navigator.clipboard.writeText(markdown);
      setSaid(trans.__('The card is on the clipboard, as Markdown.'));
    } catch (error) {
      setSaid(trans.__('The card could not be copied: %1', clean(`${error}`)));
    }
  };
  const ask = (verb: 'check' | 'promote' | 'approve' | 'withdraw' | 'compare') => () =>
    props.setWish({ verb, version: one.version });
  const approved = one.approvals.some(word => !word.withdrawn);
  return (
    <>
      <div
        className="jp-mlops-verbs"
        role="group"
        aria-label={trans.__('What can be done with version %1', one.version)}
      >
        <button
          className="jp-mod-styled"
          title={trans.__('Ask it the gates of an alias, and move nothing')}
          onClick={ask('check')}
        >
          {trans.__('Check…')}
        </button>
        <button
          className="jp-mod-styled"
          title={trans.__('Point an alias to it, if it passes the gates')}
          onClick={ask('promote')}
        >
          {trans.__('Promote…')}
        </button>
        <button
          className="jp-mod-styled"
          title={trans.__('Say that you approve exactly this version')}
          onClick={ask('approve')}
        >
          {trans.__('Approve…')}
        </button>
        {approved && (
          <button
            className="jp-mod-styled"
            title={trans.__('Take your approval back')}
            onClick={ask('withdraw')}
          >
            {trans.__('Withdraw…')}
          </button>
        )}
        {model.versions.some(other => other.version < one.version) && (
          <button
            className="jp-mod-styled"
            title={trans.__('See what is different from the version before')}
            onClick={ask('compare')}
          >
            {trans.__('Compare')}
          </button>
        )}
        <button
          className="jp-mod-styled"
          title={trans.__('Copy what is known of it, as Markdown to paste elsewhere')}
          onClick={() => void copy()}
        >
          {trans.__('Copy card')}
        </button>
      </div>
      {said && <div role="status">{said}</div>}
    </>
  );
}

/** What is set for an alias, or for any other. */
function ofAlias<T>(table: Record<string, T[]> | undefined, alias: string): T[] | undefined {
  const known = new Map(Object.entries(table ?? {})); // an older kernel tells of none
  return known.get(alias.trim().replace(/^@/, '')) ?? known.get('*');
}

/** The gates that an alias demands, as the project's settings have it. */
function demanded(model: ModelDetail, alias: string, trans: TranslationBundle): React.ReactNode {
  const name = alias.trim().replace(/^@/, '');
  const set = ofAlias(model.policy, alias);
  const gates = (set?.length ? set : model.default).map(clean).join(', ');
  return set?.length
    ? trans.__('@%1 demands: %2', clean(name), gates)
    : trans.__('Nothing is set for @%1, so the default is demanded: %2', clean(name), gates);
}

function aliasField(model: ModelDetail, trans: TranslationBundle): IField {
  const known = new Set([
    ...Object.keys(model.policy).filter(one => one !== '*'),
    ...model.aliases.map(one => one.alias)
  ]);
  const first = known.has('production') || known.size === 0 ? 'production' : [...known][0];
  return {
    name: 'alias',
    label: trans.__('Alias'),
    value: first,
    known: [...known.add('production')],
    required: true,
    pattern: '@?[A-Za-z][A-Za-z0-9_\\-]{0,99}'
  };
}

/** Why something is done, and what for; of these the project's settings may demand some. */
function why(trans: TranslationBundle, demanded: (given: Given) => string[] | undefined): IField[] {
  const demands = (word: string) => (given: Given) => demanded(given)?.includes(word) ?? false;
  return [
    { name: 'reason', label: trans.__('Reason'), kind: 'text', required: demands('reason') },
    { name: 'tickets', label: trans.__('Tickets'), required: demands('ticket') }
  ];
}

function CheckGates(props: IModelProps & { version: VersionRow }): JSX.Element {
  const { book, trans, model, name, version } = props;
  return (
    <Act
      trans={trans}
      title={trans.__('Check version %1', version.version)}
      verb={trans.__('Ask the gates')}
      fields={[aliasField(model, trans)]}
      note={given => demanded(model, given.alias, trans)}
      act={async given => {
        const done = await book.client.check(book.path, name, {
          version: version.version,
          alias: given.alias.trim()
        });
        await book.refresh();
        return (
          <>
            <b>
              {done.passed
                ? trans.__('It passes what @%1 demands.', clean(done.alias))
                : trans.__('It does not pass what @%1 demands.', clean(done.alias))}
            </b>
            <Gates gates={done.checks} trans={trans} open />
          </>
        );
      }}
      close={() => props.setWish(null)}
    />
  );
}

function Promote(props: IModelProps & { version: VersionRow }): JSX.Element {
  const { book, trans, model, name, version } = props;
  return (
    <Act
      trans={trans}
      title={trans.__('Promote version %1', version.version)}
      verb={trans.__('Promote')}
      fields={[
        aliasField(model, trans),
        ...why(trans, given => ofAlias(model.demands?.promote, given.alias))
      ]}
      note={given => demanded(model, given.alias, trans)}
      act={async given => {
        try {
          const done = await book.client.promote(book.path, name, {
            version: version.version,
            alias: given.alias.trim(),
            reason: given.reason,
            tickets: tickets(given.tickets)
          });
          return trans.__('@%1 points to version %2 now.', clean(done.alias), done.version);
        } finally {
          await book.refresh(); // a refusal is on record too
        }
      }}
      close={() => props.setWish(null)}
    />
  );
}

function RollBack(props: IModelProps & { alias: AliasRow }): JSX.Element {
  const { book, trans, name, alias } = props;
  return (
    <Act
      trans={trans}
      title={trans.__('Roll back @%1', clean(alias.alias))}
      verb={trans.__('Roll back')}
      fields={why(trans, () => ofAlias(props.model.demands?.rollback, alias.alias))}
      note={() =>
        trans.__('It is pointed to the version it pointed to before; no gate is asked for that.')
      }
      act={async given => {
        const done = await book.client.rollback(book.path, name, {
          alias: alias.alias,
          reason: given.reason,
          tickets: tickets(given.tickets)
        });
        await book.refresh();
        return trans.__('@%1 points to version %2 again.', clean(done.alias), done.version);
      }}
      close={() => props.setWish(null)}
    />
  );
}

function Approve(props: IModelProps & { version: VersionRow; withdraw: boolean }): JSX.Element {
  const { book, trans, name, version, withdraw } = props;
  return (
    <Act
      trans={trans}
      title={
        withdraw
          ? trans.__('Withdraw your approval of version %1', version.version)
          : trans.__('Approve version %1', version.version)
      }
      verb={withdraw ? trans.__('Withdraw') : trans.__('Approve')}
      fields={why(trans, () => props.model.demands?.approve)}
      note={() =>
        trans.__(
          'An approval is bound to exactly this version. The gate “approved” asks for one by somebody other than who registered it.'
        )
      }
      act={async given => {
        const done = await book.client.approve(book.path, name, {
          version: version.version,
          reason: given.reason,
          tickets: tickets(given.tickets),
          withdraw
        });
        await book.refresh();
        return withdraw
          ? trans.__('The approval by %1 is withdrawn.', clean(done.by))
          : trans.__('It is on record that %1 approves it.', clean(done.by));
      }}
      close={() => props.setWish(null)}
    />
  );
}

/** What is different from the version before. */
function Versions(props: IModelProps & { version: VersionRow; old: string }): JSX.Element {
  const { book, trans, old, version } = props;
  const [found, problem] = useRecord('', () => book.client.difference(book.path, old, version.id), [
    book,
    old,
    version.id
  ]);
  return (
    <div className="jp-mlops-act" role="group" aria-label={trans.__('What is different')}>
      {found ? (
        <Difference found={found} trans={trans} />
      ) : (
        <Waiting problem={problem} trans={trans} />
      )}
      <div className="jp-mlops-buttons">
        <button className="jp-mod-styled" autoFocus onClick={() => props.setWish(null)}>
          {trans.__('Close')}
        </button>
      </div>
    </div>
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
