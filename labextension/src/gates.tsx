/** Gates that were asked of a model: what each demanded and found, and what to do where it was not met. */
import type { TranslationBundle } from '@jupyterlab/translation';
import * as React from 'react';

import { Facts, Section, Sign, Values } from './parts';
import { Answered } from './records';
import { clean, flat } from './words';

/** Those that were not met first. */
export function Gates(props: {
  gates: Answered[];
  trans: TranslationBundle;
  open: boolean;
}): JSX.Element {
  const { gates, trans } = props;
  const passed = gates.filter(one => one.passed).length;
  const sorted = [...gates].sort((one, other) => Number(one.passed) - Number(other.passed));
  return (
    <Section title={trans.__('%1 of %2 gates passed', passed, gates.length)} open={props.open}>
      <ul className="jp-mlops-gates">
        {sorted.map((one, at) => (
          <li key={at}>
            <Sign status={one.passed ? 'done' : 'error'} /> <b>{clean(one.check)}</b>{' '}
            {one.passed ? trans.__('passed') : trans.__('refused')}
            <Facts
              rows={[
                [trans.__('Found'), text(one.evidence.found)],
                [trans.__('Demanded'), text(one.evidence.demanded)],
                [trans.__('To do'), one.passed ? '' : text(one.evidence.next)]
              ]}
            />
            <Values title={trans.__('Evidence')} of={more(one.evidence)} />
          </li>
        ))}
      </ul>
    </Section>
  );
}

const SAID = new Set(['found', 'demanded', 'next', 'for']);

/** What is not said already. */
function more(evidence: Record<string, unknown>): Record<string, unknown> {
  return Object.fromEntries(Object.entries(evidence).filter(([key]) => !SAID.has(key)));
}

function text(value: unknown): string {
  return value === undefined || value === null ? '' : flat(value);
}
