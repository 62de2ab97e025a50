/** Records in a reader's words: numbers, sizes, times, states. Everything recorded stays text. */
import type { TranslationBundle } from '@jupyterlab/translation';

import { Refused } from './client';

/** The first digits of a digest, as people are shown them. */
export function short(digest: string | null | undefined): string {
  return digest ? digest.slice(digest.indexOf(':') + 1).slice(0, 10) : '';
}

/** Control and bidirectional characters as visible escapes: they would reorder or hide what a reader sees. */
export function clean(text: string): string {
  return text.replace(
    /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]/g,
    char => `\\u${char.charCodeAt(0).toString(16).padStart(4, '0')}`
  );
}

/** Those of some texts that are not empty, in one. */
export function joined(parts: (string | null | undefined)[], by = ', '): string {
  return parts.filter(part => part).join(by);
}

/** Any recorded value on one line. */
export function flat(value: unknown): string {
  if (typeof value === 'number') {
    return Number.isInteger(value) ? String(value) : String(Number(value.toPrecision(6)));
  }
  if (typeof value === 'string') {
    return clean(value);
  }
  return value === null || value === undefined ? '—' : clean(JSON.stringify(value));
}

export function bytes(count: number | null | undefined): string {
  if (count === null || count === undefined) {
    return '';
  }
  const units = ['B', 'KiB', 'MiB', 'GiB'];
  let at = 0;
  let value = count;
  while (value >= 1024 && at < units.length - 1) {
    value /= 1024;
    at++;
  }
  return at === 0 ? `${value} B` : `${value.toFixed(1)} ${units[at]}`;
}

export function duration(seconds: number): string {
  if (seconds < 1) {
    return `${(seconds * 1000).toFixed(seconds < 0.01 ? 1 : 0)} ms`;
  }
  if (seconds < 60) {
    return `${seconds.toFixed(1)} s`;
  }
  const minutes = Math.floor(seconds / 60);
  return minutes < 60
    ? `${minutes} min ${Math.floor(seconds % 60)} s`
    : `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
}

/** A record's time in the reader's zone: the hour today, the day otherwise. */
export function when(time: string): string {
  const found = new Date(time);
  if (isNaN(found.getTime())) {
    return clean(time);
  }
  const today = found.toDateString() === new Date().toDateString();
  return today
    ? found.toLocaleTimeString([], { hour: '2-digit', minute: '2-digit' })
    : found.toLocaleDateString([], { year: 'numeric', month: 'short', day: 'numeric' });
}

/** A record's time to the second, in the reader's zone. */
export function moment(time: string): string {
  const found = new Date(time);
  return isNaN(found.getTime()) ? clean(time) : found.toLocaleString();
}

const GLYPHS: Record<string, string> = {
  done: '✓',
  cached: '✓',
  error: '✗',
  failed: '✗',
  syntax: '✗',
  interrupted: '■',
  running: '▸'
};

/** A glyph for a state, beside its word. */
export function glyph(status: string): string {
  return Object.prototype.hasOwnProperty.call(GLYPHS, status) ? GLYPHS[status] : '·';
}

/** A state in words. */
export function state(status: string, trans: TranslationBundle): string {
  switch (status) {
    case 'done':
      return trans.__('done');
    case 'running':
      return trans.__('running');
    case 'error':
    case 'failed':
      return trans.__('failed');
    case 'cached':
      return trans.__('cached');
    case 'syntax':
      return trans.__('syntax error');
    case 'interrupted':
      return trans.__('interrupted');
  }
  return clean(status);
}

/** What set a run going, in a word. */
export function origin(trigger: string, trans: TranslationBundle): string {
  switch (trigger) {
    case 'session':
      return trans.__('session');
    case 'papermill':
      return trans.__('headless');
    case 'sweep':
      return trans.__('sweep');
    case 'pipeline':
      return trans.__('pipeline');
  }
  return clean(trigger);
}

/** What a row's mark is called, and what it means. */
export function mark(name: string, trans: TranslationBundle): [string, string] {
  switch (name) {
    case 'redacted':
      return [trans.__('redacted'), trans.__('Secrets in its code are masked in the record.')];
    case 'unseeded':
      return [
        trans.__('unseeded'),
        trans.__('It drew random numbers without a seed: another run gives others.')
      ];
    case 'gap':
      return [
        trans.__('gap'),
        trans.__('Something of it could not be recorded; its details say what.')
      ];
    case 'blind':
      return [
        trans.__('blind spot'),
        trans.__(
          'Something of it could not be recorded, and nothing can be followed through it; its details say what.'
        )
      ];
  }
  return [clean(name), ''];
}

/** What a finding about a cell is called. */
export function finding(kind: string, trans: TranslationBundle): string {
  switch (kind) {
    case 'stale':
      return trans.__('stale');
    case 'built':
      return trans.__('built on stale');
    case 'order':
      return trans.__('out of order');
    case 'edited':
      return trans.__('edited since');
    case 'hidden':
      return trans.__('hidden state');
  }
  return clean(kind);
}

/** Why there is no answer: a heading, what it means, and what to do. */
export function refusal(error: Refused, trans: TranslationBundle): [string, string, string] {
  switch (error.kind) {
    case 'ServerMissing':
      return [
        trans.__('The server extension is missing'),
        trans.__('This page can show what kernels tell, and not what is on record.'),
        trans.__(
          'pip install jupyter-mlops in the environment that runs Jupyter, then start it again.'
        )
      ];
    case 'Forbidden':
      return [trans.__('You may not do that here'), clean(error.message), ''];
    case 'Kernel':
      return [trans.__('The kernel did not do it'), clean(error.message), ''];
    case 'Offline':
      return [trans.__('The server does not answer'), clean(error.message), ''];
    case 'KernelBusy':
      return [
        trans.__('The kernel is busy'),
        trans.__('It alone can read this record, and answers when it is idle.'),
        ''
      ];
    case 'KernelOnly':
      return [
        trans.__('Only the kernel can reach this record'),
        trans.__('What is to be done with it is done in a cell, with %mlops.'),
        ''
      ];
    case 'KernelGone':
      return [
        trans.__('The kernel is gone'),
        trans.__('It alone could read this record: start it again to see more of it.'),
        ''
      ];
    case 'ProjectMissing':
      return [
        trans.__('Nothing is on record here yet'),
        trans.__('Run this in a cell, and every cell run after it is on record:'),
        ''
      ];
  }
  return [clean(error.message), clean(error.cause_), clean(error.next)];
}

/** The same as a line of text. */
export function reason(error: Refused, trans: TranslationBundle): string {
  return joined(refusal(error, trans), ' ');
}
