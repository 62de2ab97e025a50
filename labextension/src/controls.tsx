/** What several views are worked with: buttons, fields, what opens and closes, and lists of which only a part is there. */
import * as React from 'react';

type ButtonProps = React.ButtonHTMLAttributes<HTMLButtonElement>;

function button(look: string) {
  return React.forwardRef<HTMLButtonElement, ButtonProps>(function Button(props, ref) {
    return <button ref={ref} type="button" className={look} {...props} />;
  });
}

/** A button as toolbars have them. */
export const Plain = button('jp-mlops-plain');
/** A button within text, that leads to something. */
export const Link = button('jp-mlops-link');
/** A button that does something, or asks for what that needs. */
export const Verb = button('jp-mod-styled');

/** What can be done with something. */
export function Verbs(props: { label?: string; children: React.ReactNode }): JSX.Element {
  return (
    <div
      className="jp-mlops-verbs"
      role={props.label ? 'group' : undefined}
      aria-label={props.label}
    >
      {props.children}
    </div>
  );
}

interface IChosenProps {
  label: string;
  value: string;
  choose: (value: string) => void;
}

/** What is searched for. */
export function Search(props: IChosenProps & { hint: string }): JSX.Element {
  return (
    <div className="jp-mlops-filter">
      <input
        className="jp-mod-styled"
        type="search"
        placeholder={props.hint}
        aria-label={props.label}
        value={props.value}
        onChange={event => props.choose(event.target.value)}
      />
    </div>
  );
}

/** A value, and what it is called. */
export type IOption = [string, string];

/** One of some values. */
export function Select(props: IChosenProps & { options: IOption[] }): JSX.Element {
  return (
    <select
      aria-label={props.label}
      value={props.value}
      onChange={event => props.choose(event.target.value)}
    >
      {props.options.map(([value, name]) => (
        <option key={value} value={value}>
          {name}
        </option>
      ))}
    </select>
  );
}

/** Has Escape close what is open, and nothing around it. */
export function escape(close: () => void): (event: React.KeyboardEvent) => void {
  return event => {
    if (event.key === 'Escape') {
      event.stopPropagation();
      close();
    }
  };
}

/** A button with a sign in place of words, which who hears the page and who points at it are told. */
export function SignButton(props: {
  sign: string;
  label: string;
  title?: string;
  go: () => void;
  autoFocus?: boolean;
}): JSX.Element {
  return (
    <Plain
      className="jp-mlops-plain jp-mod-icon"
      aria-label={props.label}
      title={props.title ?? props.label}
      autoFocus={props.autoFocus}
      onClick={props.go}
    >
      <span aria-hidden="true">{props.sign}</span>
    </Plain>
  );
}

/** The way back, or out: what it is called, and what it does. */
interface IWay {
  label: string;
  go: () => void;
  autoFocus?: boolean;
}

/** The heading of what is shown of one thing: the way back before it; what can be done, and the way out, behind. */
export function Head(props: {
  title: string;
  back?: IWay | null;
  close?: IWay;
  children?: React.ReactNode;
}): JSX.Element {
  const { title, back, close } = props;
  return (
    <div className="jp-mlops-detail-head">
      {back && <SignButton sign="←" {...back} />}
      <h3 title={title}>{title}</h3>
      {props.children}
      {close && <SignButton sign="✕" {...close} />}
    </div>
  );
}

/** What is shown of one thing: it scrolls, by keys too. */
export const Body = React.forwardRef<HTMLDivElement, { label: string; children: React.ReactNode }>(
  function Body(props, ref) {
    return (
      <div
        ref={ref}
        className="jp-mlops-detail-body"
        tabIndex={0}
        role="group"
        aria-label={props.label}
      >
        {props.children}
      </div>
    );
  }
);

interface IPaneProps {
  /** What it is called. */
  label: string;
  /** What its grip is called. */
  grip: string;
  close: () => void;
  children: React.ReactNode;
}

const LOWEST = 20;
const HIGHEST = 85;

/** The lower part of a tab, which can be made higher and lower, and is closed with Escape. */
export function Pane(props: IPaneProps): JSX.Element {
  const [height, setHeight] = React.useState(55);
  const set = (part: number) => setHeight(Math.max(LOWEST, Math.min(HIGHEST, Math.round(part))));
  return (
    <section
      className="jp-mlops-details"
      aria-label={props.label}
      style={{ flexBasis: `${height}%` }}
      onKeyDown={escape(props.close)}
    >
      <div
        className="jp-mlops-grip"
        role="separator"
        tabIndex={0}
        aria-orientation="horizontal"
        aria-valuenow={height}
        aria-valuemin={LOWEST}
        aria-valuemax={HIGHEST}
        aria-label={props.grip}
        onKeyDown={event => {
          const step = event.key === 'ArrowUp' ? 5 : event.key === 'ArrowDown' ? -5 : 0;
          if (step) {
            event.preventDefault();
            set(height + step);
          }
        }}
        onPointerDown={event => {
          const grip = event.currentTarget;
          const whole = grip.parentElement?.parentElement?.getBoundingClientRect();
          grip.setPointerCapture(event.pointerId);
          grip.onpointermove = move => {
            if (whole) {
              set((100 * (whole.bottom - move.clientY)) / whole.height);
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

/** The width and height of an element, as they are by now. */
export function useSize(
  box: React.RefObject<HTMLElement>,
  first: [number, number]
): [number, number] {
  const [size, setSize] = React.useState(first);
  React.useLayoutEffect(() => {
    const node = box.current;
    if (!node) {
      return undefined;
    }
    const measure = () => setSize([node.clientWidth, node.clientHeight]);
    const observer = new ResizeObserver(measure);
    observer.observe(node);
    measure();
    return () => observer.disconnect();
  }, []);
  return size;
}

/** Rows beyond those in sight that are in the page. */
const SPARE = 6;

export interface IRows {
  /** The first and the last row that are in the page; none where the last is before the first. */
  first: number;
  last: number;
  /** The row that the keys are at. */
  active: number;
  setActive: (place: number) => void;
  /** The row that the keys are at, where it is in the page: for `aria-activedescendant`. */
  there: number | null;
  /** What the box of the rows needs. */
  box: {
    ref: React.RefObject<HTMLDivElement>;
    tabIndex: number;
    onScroll: (event: React.UIEvent<HTMLDivElement>) => void;
    onKeyDown: (event: React.KeyboardEvent<HTMLDivElement>) => void;
  };
}

/**
 * A long list of rows of one height, of which only those in sight are in the page, walked through with keys.
 *
 * @param head The height of what stands above the rows and does not scroll away.
 * @param press What another key does at a row; gives whether it does anything.
 */
export function useRows(
  length: number,
  row: number,
  head: number,
  press: (key: string, place: number) => boolean
): IRows {
  const ref = React.useRef<HTMLDivElement>(null);
  const [top, setTop] = React.useState(0);
  const [, height] = useSize(ref, [0, 600]);
  const [wish, setActive] = React.useState(0);
  const active = Math.min(wish, Math.max(0, length - 1));
  const first = Math.max(0, Math.floor(top / row) - SPARE);
  const last = Math.min(length - 1, Math.ceil((top + height) / row) + SPARE);
  const go = (place: number) => {
    const to = Math.max(0, Math.min(length - 1, place));
    setActive(to);
    const node = ref.current;
    if (node) {
      const end = (to + 1) * row + head - node.clientHeight;
      node.scrollTop = Math.max(Math.min(node.scrollTop, to * row), end);
    }
  };
  const onKeyDown = (event: React.KeyboardEvent<HTMLDivElement>) => {
    if (event.target !== event.currentTarget) {
      return; // a button among them has its own keys
    }
    const page = Math.max(1, Math.floor((height - head) / row) - 1);
    const moves: Record<string, number> = {
      ArrowDown: active + 1,
      ArrowUp: active - 1,
      PageDown: active + page,
      PageUp: active - page,
      Home: 0,
      End: length - 1
    };
    if (event.key in moves) {
      go(moves[event.key]);
    } else if (!press(event.key, active)) {
      return;
    }
    event.preventDefault();
    event.stopPropagation();
  };
  return {
    first,
    last,
    active,
    setActive,
    there: active >= first && active <= last ? active : null,
    box: { ref, tabIndex: 0, onScroll: event => setTop(event.currentTarget.scrollTop), onKeyDown }
  };
}
