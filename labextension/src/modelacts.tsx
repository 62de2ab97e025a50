/** What can be done with models: registered, checked, promoted, approved, rolled back, compared; a form for each. */
import type { TranslationBundle } from '@jupyterlab/translation';
import * as React from 'react';

import { Act, Given, IField, tickets } from './acts';
import { useRecord } from './asking';
import { Verb } from './controls';
import { Difference } from './difference';
import { Gates } from './gates';
import { Section, Waiting } from './parts';
import { AliasRow, Demands, ModelDetail, VersionRow } from './records';
import { MODEL, registration, VARIABLE } from './register';
import type { ITabProps } from './tabs';
import { clean } from './words';

/** What is being asked for: one form at a time. */
export type Wish =
  | { verb: 'check' | 'promote' | 'approve' | 'withdraw' | 'compare'; version: number }
  | { verb: 'rollback'; alias: string }
  | { verb: 'register' };

export interface IModelProps extends ITabProps {
  name: string;
  model: ModelDetail;
  wish: Wish | null;
  setWish: (wish: Wish | null) => void;
}

type IVersionProps = IModelProps & { version: VersionRow };

/** Has the kernel register a variable, with the words that a cell would have. */
export function Register(
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

export function CheckGates(props: IVersionProps): JSX.Element {
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

export function Promote(props: IVersionProps): JSX.Element {
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

export function RollBack(props: IModelProps & { alias: AliasRow }): JSX.Element {
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

export function Approve(props: IVersionProps & { withdraw: boolean }): JSX.Element {
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
export function Versions(props: IVersionProps & { old: string }): JSX.Element {
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
        <Verb autoFocus onClick={() => props.setWish(null)}>
          {trans.__('Close')}
        </Verb>
      </div>
    </div>
  );
}
