/** All that is on record of one run. */
import * as React from 'react';

import { Body, Head, Link, Pane, Plain } from './controls';
import { Facts, Section, Values } from './parts';
import { MeasuredRun } from './records';
import type { ITabProps } from './tabs';
import { clean, duration, moment, origin, short, state } from './words';

interface IRunDetailProps extends ITabProps {
  run: MeasuredRun;
  close: () => void;
  select: (id: string) => void;
}

export function RunDetail(props: IRunDetailProps): JSX.Element {
  const { book, trans, run } = props;
  const place = run.result ? book.place(run.result) : null;
  const parent = run.parent;
  const children = book.table.runs.filter(one => one.parent === run.id).length;
  return (
    <Pane
      label={trans.__('Details of a run')}
      grip={trans.__('Height of the details')}
      close={props.close}
    >
      <Head
        title={trans.__('Run %1', short(run.id))}
        close={{ label: trans.__('Close the details'), go: props.close }}
      >
        {run.result && (
          <Plain
            disabled={place === null}
            title={
              place === null
                ? trans.__('It is not where this server shows files: %1', clean(run.result))
                : trans.__('Open the notebook it left: %1', clean(run.result))
            }
            onClick={() => place !== null && props.openFile(place)}
          >
            {trans.__('Open result')}
          </Plain>
        )}
      </Head>
      <Body label={trans.__('What is on record of it')}>
        <Facts
          rows={[
            [trans.__('State'), state(run.status, trans)],
            [trans.__('Kind'), origin(run.trigger, trans)],
            [trans.__('Started'), moment(run.time)],
            [trans.__('Took'), run.status === 'running' ? '' : duration(run.seconds)],
            [trans.__('Notebook'), clean(run.notebook)],
            [trans.__('Who'), clean(run.user)],
            [trans.__('On behalf of'), clean(run.on_behalf_of ?? '')],
            [trans.__('Tickets'), run.tickets.map(one => clean(one.id)).join(' ')],
            [trans.__('Result'), clean(run.result)],
            [
              trans.__('Part of'),
              parent && (
                <Link onClick={() => props.select(parent)}>
                  {trans.__('run %1', short(parent))}
                </Link>
              )
            ],
            [trans.__('Its runs'), children ? `${children}` : ''],
            [
              trans.__('Not read'),
              run.unread
                ? trans._n('%1 earlier logged value', '%1 earlier logged values', run.unread)
                : ''
            ]
          ]}
        />
        {run.error && (
          <Section title={trans.__('Error')} open>
            <pre className="jp-mlops-error">{clean(run.error)}</pre>
          </Section>
        )}
        <Values title={trans.__('Metrics')} of={run.metrics} open />
        <Values title={trans.__('Parameters')} of={{ ...run.logged, ...run.parameters }} open />
      </Body>
    </Pane>
  );
}
