import assert from 'node:assert/strict';
import { test } from 'node:test';

import { isRow } from '../src/kernel';
import { PAGE, RowList } from '../src/model';
import { json, row, serving, until } from './serving';

/** A list over a server that has so many cell runs. */
async function listOf(total: () => number) {
  const { client, asked } = await serving((address, response) => {
    const words = address.searchParams;
    const before = words.has('before') ? Number(words.get('before')) : total();
    const limit = Number(words.get('limit'));
    const low = Math.max(0, before - limit);
    const search = words.get('search') ?? '';
    const rows = Array.from({ length: before - low }, (_, at) => row(before - 1 - at));
    json(response, {
      rows: rows.filter(one => one.title.includes(search)),
      total: total(),
      next: low || null,
      mark: `${total()}`
    });
  });
  let changes = 0;
  const list = new RowList(
    () => client,
    () => 'a.ipynb',
    () => changes++
  );
  return { list, asked, changes: () => changes };
}

test('only the pieces that are looked at are fetched, and each keeps its numbers', async () => {
  const { list, asked } = await listOf(() => 1000);
  list.refresh();
  await until(() => list.known && !list.busy);
  assert.equal(list.length, 1000);
  assert.equal(list.at(0)?.title, 'step(999)');
  assert.equal(list.at(500), null);
  list.ensure(495, 505);
  await until(() => list.at(495) !== null && list.at(505) !== null);
  assert.equal(list.at(500)?.position, 499);
  assert.ok(asked.length <= 3);
  assert.ok(asked.every(one => Number(one.searchParams.get('limit')) <= PAGE));
});

test('what the kernel tells stands on top until the server has it too', async () => {
  let total = 3;
  const { list } = await listOf(() => total);
  list.refresh();
  await until(() => list.known && !list.busy);
  list.tell(row(3, { position: -1, status: 'running' }));
  assert.equal(list.length, 4);
  assert.equal(list.at(0)?.status, 'running');
  list.tell(row(3, { position: -1, status: 'done' }));
  assert.deepEqual([list.length, list.at(0)?.status], [4, 'done']);
  total = 4;
  list.refresh();
  await until(() => list.at(0)?.position === 3);
  assert.equal(list.length, 4);
  list.tell(row(1, { position: -1, title: 'told again' }));
  assert.deepEqual([list.at(2)?.title, list.at(2)?.position], ['told again', 1]);
});

test('a search shows what is found, and goes back to all of it', async () => {
  const { list } = await listOf(() => 50);
  list.setFilter({ search: 'step(7)', status: '' });
  await until(() => list.known && !list.busy);
  assert.deepEqual([list.length, list.at(0)?.title, list.more], [1, 'step(7)', false]);
  list.setFilter({ search: '', status: '' });
  await until(() => list.at(0)?.title === 'step(49)');
  assert.equal(list.length, 50);
});

test('another notebook begins with nothing of the one before', async () => {
  const { list } = await listOf(() => 5);
  list.refresh();
  await until(() => list.known && !list.busy);
  list.tell(row(9, { position: -1 }));
  list.clear(true);
  assert.deepEqual([list.length, list.known], [0, false]);
});

test('what a kernel sends is a row only where it has the form of one', () => {
  assert.ok(isRow(row(1)));
  for (const other of [null, 3, {}, { ...row(1), made: 'x' }, { ...row(1), id: 7 }]) {
    assert.equal(isRow(other), false);
  }
});
