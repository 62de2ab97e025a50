/** What several views are made of. */
import type { TranslationBundle } from '@jupyterlab/translation';
import * as React from 'react';

import { Refused } from './client';
import { Gap } from './records';
import { clean, refusal } from './words';

interface ISectionProps {
  title: string;
  count?: number;
  open?: boolean;
  children: React.ReactNode;
}

export function Section(props: ISectionProps): JSX.Element {
  return (
    <details className="jp-mlops-section" open={props.open}>
      <summary>
        {props.title}
        {props.count ? <span className="jp-mlops-number">{props.count}</span> : null}
      </summary>
      {props.children}
    </details>
  );
}

/** Names and what they are; what is empty is left out. */
export function Facts(props: { rows: [string, React.ReactNode][] }): JSX.Element | null {
  const rows = props.rows.filter(([, value]) => value !== '' && value !== null);
  if (!rows.length) {
    return null;
  }
  return (
    <dl className="jp-mlops-dl">
      {rows.map(([name, value], at) => (
        <React.Fragment key={at}>
          <dt>{name}</dt>
          <dd>{value}</dd>
        </React.Fragment>
      ))}
    </dl>
  );
}

/** What could not be recorded, and why. */
export function Gaps(props: { gaps: Gap[]; title: string; open?: boolean }): JSX.Element | null {
  return props.gaps.length > 0 ? (
    <Section title={props.title} count={props.gaps.length} open={props.open}>
      <Facts rows={props.gaps.map(gap => [clean(gap.subject), clean(gap.reason)])} />
    </Section>
  ) : null;
}

/** That there is nothing to show yet, and why. */
export function Waiting(props: { problem: Refused | null; trans: TranslationBundle }): JSX.Element {
  const { problem, trans } = props;
  return (
    <div className="jp-mlops-none" role="status">
      {problem
        ? refusal(problem, trans)
            .filter(part => part)
            .join(' ')
        : trans.__('Loading…')}
    </div>
  );
}

interface IPaneProps {
  /** What it is called. */
  label: string;
  /** What its grip is called. */
  grip: string;
  close: () => void;
  children: React.ReactNode;
}

/** The lower part of a tab, which can be made higher and lower, and is closed with Escape. */
export function Pane(props: IPaneProps): JSX.Element {
  const [height, setHeight] = React.useState(55);
  return (
    <section
      className="jp-mlops-details"
      aria-label={props.label}
      style={{ flexBasis: `${height}%` }}
      onKeyDown={event => {
        if (event.key === 'Escape') {
          event.stopPropagation();
          props.close();
        }
      }}
    >
      <div
        className="jp-mlops-grip"
        role="separator"
        tabIndex={0}
        aria-orientation="horizontal"
        aria-valuenow={height}
        aria-valuemin={20}
        aria-valuemax={85}
        aria-label={props.grip}
        onKeyDown={event => {
          const step = event.key === 'ArrowUp' ? 5 : event.key === 'ArrowDown' ? -5 : 0;
          if (step) {
            event.preventDefault();
            setHeight(Math.max(20, Math.min(85, height + step)));
          }
        }}
        onPointerDown={event => {
          const grip = event.currentTarget;
          const whole = grip.parentElement?.parentElement?.getBoundingClientRect();
          grip.setPointerCapture(event.pointerId);
          grip.onpointermove = move => {
            if (whole) {
              const part = (100 * (whole.bottom - move.clientY)) / whole.height;
              setHeight(Math.max(20, Math.min(85, Math.round(part))));
            }
          };
          grip.onpointerup = () => {
            grip.onpointermove = null;
          };
        }}
      />
      {props.children}
    </section>
  );
}
