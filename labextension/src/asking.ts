/** Has a view show what the record answers, and ask again when there is more. */
import * as React from 'react';

import { Refused } from './client';
import type { Book } from './model';

const kept = new WeakMap<Book, Map<string, unknown>>();

/** A state that is still there when its tab is shown again. */
export function useKept<T>(book: Book, name: string, first: T): [T, (value: T) => void] {
  let all = kept.get(book);
  if (!all) {
    all = new Map();
    kept.set(book, all);
  }
  const of = all;
  const [value, setValue] = React.useState(of.has(name) ? (of.get(name) as T) : first);
  return [
    value,
    next => {
      of.set(name, next);
      setValue(next);
    }
  ];
}

/** Fetch something of the record, again whenever more is on record. */
export function useRecord<T>(
  mark: string | undefined,
  ask: () => Promise<T>,
  of: unknown[]
): [T | null, Refused | null] {
  const [found, setFound] = React.useState<T | null>(null);
  const [problem, setProblem] = React.useState<Refused | null>(null);
  React.useEffect(() => {
    let gone = false;
    ask().then(
      value => {
        if (!gone) {
          setFound(value);
          setProblem(null);
        }
      },
      error => {
        if (!gone) {
          setProblem(error instanceof Refused ? error : new Refused('Failed', `${error}`));
        }
      }
    );
    return () => {
      gone = true;
    };
  }, [mark, ...of]);
  return [found, problem];
}
