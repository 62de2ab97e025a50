/** Gates that were asked of a model: what each demanded and found, and what to do where it was not met. */
import type { TranslationBundle } from '@jupyterlab/translation';
import * as React from 'react';

import { Facts, Section } from './parts';
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
            <span
              className={`jp-mlops-state jp-mod-${one.passed ? 'done' : 'error'}`}
              aria-hidden="true"
            >
              {one.passed ? '✓' : '✗'}
            </span>{' '}
            <b>{clean(one.check)}</b> {one.passed ? trans.__('passed') : trans.__('refused')}
            <Facts
              rows={[
                [trans.__('Found'), text(one.evidence.found)],
                [trans.__('Demanded'), text(one.evidence.demanded)],
                [trans.__('To do'), one.passed ? '' : text(one.evidence.next)]
              ]}
            />
            <Evidence evidence={one.evidence} trans={trans} />
          </li>
        ))}
      </ul>
    </Section>
  );
}

const SAID = new Set(['found', 'demanded', 'next', 'for']);

function Evidence(props: {
  evidence: Record<string, unknown>;
  trans: TranslationBundle;
}): JSX.Element | null {
  const more = Object.entries(props.evidence).filter(([key]) => !SAID.has(key));
  if (!more.length) {
    return null;
  }
  return (
    <Section title={props.trans.__('Evidence')}>
      <Facts rows={more.map(([key, value]) => [clean(key), flat(value)])} />
    </Section>
  );
}

function text(value: unknown): string {
  return value === undefined || value === null ? '' : flat(value);
}
