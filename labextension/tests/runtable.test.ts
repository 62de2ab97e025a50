import assert from 'node:assert/strict';
import { test } from 'node:test';

import { columnsOf, filtered, RunTable, scaleOf, sorted, ticks, valueOf } from '../src/runtable';
import { json, run, serving, until } from './serving';

test('columns that differ come first, parameters before metrics, and those of any run last', () => {
  const runs = [
    run(1, { parameters: { depth: 3, seed: 1 }, metrics: { auc: 0.5, rows: 10 } }),
    run(2, { parameters: { depth: 5, seed: 1 }, metrics: { auc: 0.7, rows: 10 } })
  ];
  assert.deepEqual(
    columnsOf(runs).map(one => one.id),
    [
      'parameter:depth',
      'metric:auc',
      'parameter:seed',
      'metric:rows',
      'fact:time',
      'fact:status',
      'fact:trigger',
      'fact:notebook',
      'fact:seconds',
      'fact:user'
    ]
  );
});

test('what only some runs have is not the same in all', () => {
  const differs = (...runs: ReturnType<typeof run>[]) =>
    columnsOf(runs).find(one => one.id === 'metric:auc')?.differs;
  const own = run(1, { metrics: { auc: 1 } });
  assert.equal(differs(own, run(2, { metrics: { rows: 3 } })), true);
  assert.equal(
    differs(own, run(2, { metrics: { auc: 1 } }), run(3, { trigger: 'session' })),
    false
  );
});

test('the ranges of a sweep are no parameters, and logged ones are', () => {
  const runs = [
    run(1, { trigger: 'sweep', parameters: { key: 'x', over: { depth: '3,5' } } }),
    run(2, { logged: { rate: 0.1 }, parameters: { depth: 3 } })
  ];
  const names = columnsOf(runs)
    .filter(one => one.kind === 'parameter')
    .map(one => one.name);
  assert.deepEqual(names, ['depth', 'rate']);
  assert.equal(valueOf(runs[1], 'parameter:rate'), 0.1);
  assert.equal(valueOf(runs[0], 'parameter:key'), undefined);
});

test('a metric called as something every object has is a metric and nothing else', () => {
  const odd = run(1, { metrics: JSON.parse('{"__proto__": 1, "constructor": 2}') });
  assert.equal(valueOf(odd, 'metric:constructor'), 2);
  assert.equal(valueOf(run(2), 'metric:constructor'), undefined);
  assert.equal(valueOf(run(2), 'parameter:toString'), undefined);
});

test('numbers sort as numbers, texts after them, and what has no value last either way', () => {
  const values = [10, 9, 'b', undefined, NaN, 'a', -1];
  const runs = values.map((depth, at) =>
    run(at, { parameters: depth === undefined ? {} : { depth } })
  );
  const order = (down: boolean) =>
    sorted(runs, { column: 'parameter:depth', down }).map(one => one.parameters.depth);
  assert.deepEqual(order(false), [-1, 9, 10, 'a', 'b', undefined, NaN]);
  assert.deepEqual(order(true), [10, 9, -1, 'b', 'a', undefined, NaN]);
});

test('runs are found by all words, by kind and by state', () => {
  const runs = [
    run(1, { parameters: { depth: 3 }, metrics: { auc: 0.5 } }),
    run(2, { parameters: { depth: 5 }, status: 'failed', error: 'No Column' }),
    run(3, { trigger: 'session' })
  ];
  const found = (search: string, trigger = '', status = '') =>
    filtered(runs, { search, trigger, status }).map(one => one.seconds);
  assert.deepEqual(found(''), [1, 2, 3]);
  assert.deepEqual(found('depth=3 AUC'), [1]);
  assert.deepEqual(found('column'), [2]);
  assert.deepEqual(found('', 'session'), [3]);
  assert.deepEqual(found('', '', 'failed'), [2]);
});

test('an axis goes by number, by logarithm where that says more, or by name', () => {
  const even = scaleOf([0, 5, 10, 'x'].slice(0, 3));
  assert.deepEqual([even.at(0), even.at(5), even.at(10), even.at('x')], [0, 0.5, 1, null]);
  const log = scaleOf([0.001, 0.1, 10]);
  assert.ok(log.log);
  assert.ok(Math.abs((log.at(0.1) ?? NaN) - 0.5) < 1e-9);
  const names = scaleOf(['b', 'a', 'b']);
  assert.deepEqual([names.at('a'), names.at('b'), names.at(undefined)], [0.25, 0.75, null]);
  assert.equal(scaleOf([4, 4]).at(4), 0.5);
  assert.deepEqual(scaleOf([]).marks, []);
  assert.equal(scaleOf([NaN, 1, 2]).at(NaN), null);
});

test('round numbers divide a range', () => {
  assert.deepEqual(ticks(0, 1, 4), [0, 0.5, 1]);
  assert.deepEqual(ticks(0.12, 0.31, 4), [0.15, 0.2, 0.25, 0.3]);
  assert.deepEqual(ticks(3, 3, 4), [3]);
});

/** A table over a server that has so many runs, newest first. */
async function tableOf(all: ReturnType<typeof run>[]) {
  const { client, asked } = await serving((address, response) => {
    const words = address.searchParams;
    const name = address.pathname.split('/').pop() ?? '';
    if (name !== 'runs') {
      json(
        response,
        all.find(one => one.id === decodeURIComponent(name))
      );
      return;
    }
    const skip = Number(words.get('skip'));
    const limit = Number(words.get('limit'));
    json(response, {
      runs: all.slice(skip, skip + limit),
      next: all.length > skip + limit ? skip + limit : null,
      total: all.length,
      mark: ''
    });
  });
  const table = new RunTable(
    () => client,
    () => 'a.ipynb',
    () => undefined
  );
  return { table, asked };
}

test('all runs are fetched piece by piece, and later only what is new or still goes on', async () => {
  const all = Array.from({ length: 1200 }, (_, at) => run(1200 - at));
  all[1100] = { ...all[1100], status: 'running' };
  const { table, asked } = await tableOf(all);
  table.ensure('train.ipynb', 'one');
  await until(() => table.runs.length === 1200 && !table.busy);
  const before = asked.length;
  assert.deepEqual(new Set(table.runs.map(one => one.id)).size, 1200);
  table.ensure('train.ipynb', 'one');
  assert.equal(asked.length, before);

  all[1100] = { ...all[1100], status: 'failed' };
  all.unshift(run(1201));
  table.ensure('train.ipynb', 'two');
  await until(() => table.runs.length === 1201 && !table.busy);
  assert.equal(table.runs.find(one => one.id === all[1101].id)?.status, 'failed');
  assert.equal(asked.length - before, 2);
});

test('what a notebook had is not shown for the project', async () => {
  const { table } = await tableOf([run(1)]);
  table.ensure('train.ipynb', 'one');
  await until(() => table.known && !table.busy);
  table.ensure('', 'one');
  assert.deepEqual([table.runs, table.known], [[], false]);
  await until(() => table.known && !table.busy);
  assert.equal(table.runs.length, 1);
});

test('a refusal is kept, and can be asked again', async () => {
  let broken = true;
  const { client } = await serving((_, response) =>
    broken
      ? json(response, { kind: 'StoreBusy', message: 'does not answer' }, 503)
      : json(response, { runs: [run(1)], next: null, total: 1, mark: '' })
  );
  const table = new RunTable(
    () => client,
    () => 'a.ipynb',
    () => undefined
  );
  table.ensure('', 'one');
  await until(() => table.problem !== null && !table.busy);
  assert.equal(table.problem?.kind, 'StoreBusy');
  broken = false;
  table.retry();
  await until(() => table.runs.length === 1);
  assert.equal(table.problem, null);
});
