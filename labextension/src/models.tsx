/** The project's models: their versions, the names that point to them, the gates that were asked, and what can be done. */
import type { TranslationBundle } from '@jupyterlab/translation';
import * as React from 'react';

import { useRecord } from './asking';
import { Body, Head, Link, Verb, Verbs } from './controls';
import { Gates } from './gates';
import {
  Approve,
  CheckGates,
  IModelProps,
  Promote,
  Register,
  RollBack,
  Versions,
  Wish
} from './modelacts';
import { Empty, FactList, Facts, Gaps, Notice, Section, Sign, Values, Waiting } from './parts';
import { AliasRow, ModelDetail, ModelRow, Step, VersionRow } from './records';
import type { ITab, ITabProps } from './tabs';
import { bytes, clean, joined, moment, short, when } from './words';

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
        <Empty
          heading={trans.__('No model is registered yet')}
          said={[trans.__('In the cell that made one:')]}
          code="%mlops register VARIABLE NAME"
        />
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
    <Verbs>
      <Verb
        aria-disabled={!can}
        title={
          can
            ? trans.__("Keep a variable of this notebook's kernel as a version of a model")
            : trans.__('The kernel does not record: run %load_ext jupyter_mlops in a cell first')
        }
        onClick={() => can && props.start()}
      >
        {trans.__('Register a model…')}
      </Verb>
    </Verbs>
  );
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
      <Head
        title={clean(name)}
        back={{ label: trans.__('All models'), go: props.close, autoFocus: true }}
      />
      <Body ref={body} label={trans.__('What is on record of it')}>
        {(!model || problem) && <Waiting problem={problem} trans={trans} />}
        {model?.unreadable && <Notice fault>{clean(model.unreadable)}</Notice>}
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
      </Body>
    </section>
  );
}

function Alias(props: IModelProps & { alias: AliasRow }): JSX.Element {
  const { alias, trans, wish } = props;
  const to = alias.version === null ? trans.__('nothing') : trans.__('version %1', alias.version);
  return (
    <Section title={`@${clean(alias.alias)} → ${to}`} open>
      {alias.version !== null && (
        <Verbs>
          <Verb
            aria-label={trans.__('Roll back @%1', clean(alias.alias))}
            title={trans.__('Point it to the version it pointed to before')}
            onClick={() => props.setWish({ verb: 'rollback', alias: alias.alias })}
          >
            {trans.__('Roll back…')}
          </Verb>
        </Verbs>
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
        <Sign status={step.refused ? 'error' : 'done'} /> <b>{what}</b>
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
      <Doable {...props} />
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
          [trans.__('Format'), joined([clean(one.format), bytes(one.size)])],
          [trans.__('Bytes'), short(one.digest)],
          [
            trans.__('Made by'),
            cellRun ? (
              <Link onClick={() => props.go('timeline', cellRun)}>
                {trans.__('cell run %1', short(cellRun))}
              </Link>
            ) : (
              trans.__('no cell run on record')
            )
          ],
          [
            trans.__('Comes from'),
            cellRun && (
              <Link
                title={trans.__('Show what it builds on, as a graph')}
                onClick={() => props.go('lineage', `models:/${model.name}/${one.version}`)}
              >
                {trans.__('Lineage')}
              </Link>
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
      <FactList
        title={trans.__('Trained on')}
        rows={one.training.map(data => [
          clean(data.name),
          joined([clean(data.type ?? ''), short(data.digest)])
        ])}
      />
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
function Doable(props: IModelProps & { version: VersionRow }): JSX.Element {
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
      <Verbs label={trans.__('What can be done with version %1', one.version)}>
        <Verb
          title={trans.__('Ask it the gates of an alias, and move nothing')}
          onClick={ask('check')}
        >
          {trans.__('Check…')}
        </Verb>
        <Verb
          title={trans.__('Point an alias to it, if it passes the gates')}
          onClick={ask('promote')}
        >
          {trans.__('Promote…')}
        </Verb>
        <Verb
          title={trans.__('Say that you approve exactly this version')}
          onClick={ask('approve')}
        >
          {trans.__('Approve…')}
        </Verb>
        {approved && (
          <Verb title={trans.__('Take your approval back')} onClick={ask('withdraw')}>
            {trans.__('Withdraw…')}
          </Verb>
        )}
        {model.versions.some(other => other.version < one.version) && (
          <Verb
            title={trans.__('See what is different from the version before')}
            onClick={ask('compare')}
          >
            {trans.__('Compare')}
          </Verb>
        )}
        <Verb
          title={trans.__('Copy what is known of it, as Markdown to paste elsewhere')}
          onClick={() => void copy()}
        >
          {trans.__('Copy card')}
        </Verb>
      </Verbs>
      {said && <div role="status">{said}</div>}
    </>
  );
}

function pairs(tags: Record<string, string>): string {
  return Object.entries(tags)
    .map(([key, value]) => `${clean(key)}=${clean(value)}`)
    .join(', ');
}
