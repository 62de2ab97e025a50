/** What several views show: sections, facts, what is not known, and what stands where there is nothing to show. */
import type { TranslationBundle } from '@jupyterlab/translation';
import * as React from 'react';

import { Refused } from './client';
import { CodeState, Gap, Package } from './records';
import { clean, flat, glyph, reason } from './words';

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

/** A name, and what it is. */
export type IFact = [string, React.ReactNode];

/** Names and what they are; what is empty is left out. */
export function Facts(props: { rows: IFact[] }): JSX.Element | null {
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

interface IListedProps {
  title: string;
  open?: boolean;
}

/** A section of facts, with their number; none of it where there are none. */
export function FactList(props: IListedProps & { rows: IFact[] }): JSX.Element | null {
  return props.rows.length > 0 ? (
    <Section title={props.title} count={props.rows.length} open={props.open}>
      <Facts rows={props.rows} />
    </Section>
  ) : null;
}

/** Recorded values by their names, in the order of these. */
export function Values(props: IListedProps & { of: Record<string, unknown> }): JSX.Element | null {
  const rows = Object.entries(props.of).sort(([one], [other]) => (one < other ? -1 : 1));
  return <FactList {...props} rows={rows.map(([key, value]) => [clean(key), flat(value)])} />;
}

/** What could not be recorded, and why. */
export function Gaps(props: IListedProps & { gaps: Gap[] }): JSX.Element | null {
  return (
    <FactList {...props} rows={props.gaps.map(gap => [clean(gap.subject), clean(gap.reason)])} />
  );
}

/** Sentences that were recorded or answered. */
export function Notes(props: IListedProps & { of: string[] }): JSX.Element | null {
  return props.of.length > 0 ? (
    <Section title={props.title} count={props.of.length} open={props.open}>
      <ul className="jp-mlops-notes">
        {props.of.map((text, at) => (
          <li key={at}>{clean(text)}</li>
        ))}
      </ul>
    </Section>
  ) : null;
}

/** The state of the code around a notebook. */
export function codeFacts(code: CodeState | null, trans: TranslationBundle): IFact[] {
  return [
    [trans.__('Commit'), clean(code?.commit ?? '').slice(0, 12)],
    [trans.__('Branch'), clean(code?.branch ?? '')],
    [trans.__('Changed files'), (code?.dirty ?? []).map(one => clean(one.name)).join(', ')]
  ];
}

/** The packages of an environment; of one that was loaded in another version than is installed, both. */
export function Packages(props: { of: Package[]; trans: TranslationBundle }): JSX.Element | null {
  const { of, trans } = props;
  return (
    <FactList
      title={trans.__('Packages')}
      rows={of.map(one => [
        clean(one.name),
        one.loaded && one.loaded !== one.version
          ? trans.__('%1 installed, %2 loaded', clean(one.version), clean(one.loaded))
          : clean(one.version)
      ])}
    />
  );
}

/** The sign of a state; where its word does not stand beside it, the sign has it. */
export function Sign(props: { status: string; word?: string }): JSX.Element {
  const { status, word } = props;
  return (
    <span
      className={`jp-mlops-state jp-mod-${/^[a-z]+$/.test(status) ? status : 'other'}`}
      role={word ? 'img' : undefined}
      aria-label={word}
      aria-hidden={word ? undefined : true}
      title={word}
    >
      {glyph(status)}
    </span>
  );
}

/** Something that is to be seen before anything else: at once by who hears the page, where it is a fault. */
export function Notice(props: {
  problem?: Refused | null;
  trans?: TranslationBundle;
  fault?: boolean;
  children?: React.ReactNode;
}): JSX.Element | null {
  const { problem, trans, children } = props;
  if (problem === null) {
    return null;
  }
  return (
    <div className="jp-mlops-problem" role={problem || props.fault ? 'alert' : 'status'}>
      {problem && trans && <>{reason(problem, trans)} </>}
      {children}
    </div>
  );
}

/** That there is nothing to show yet, and why. */
export function Waiting(props: {
  problem?: Refused | null;
  trans: TranslationBundle;
  /** A better word for why. */
  said?: string;
  children?: React.ReactNode;
}): JSX.Element {
  const { problem, trans, said } = props;
  return (
    <div className="jp-mlops-none" role="status">
      {said || (problem ? reason(problem, trans) : trans.__('Loading…'))} {props.children}
    </div>
  );
}

/** What stands where there is nothing: what is so, why, and what can be done. */
export function Empty(props: {
  heading: string;
  /** What it means; what is empty is left out. */
  said?: string[];
  /** What to run in a cell. */
  code?: string;
  children?: React.ReactNode;
}): JSX.Element {
  return (
    <div className="jp-mlops-empty" role="status">
      <h3>{props.heading}</h3>
      {props.said?.filter(Boolean).map((text, at) => (
        <p key={at}>{text}</p>
      ))}
      {props.code && <code>{props.code}</code>}
      {props.children}
    </div>
  );
}
