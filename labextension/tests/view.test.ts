import assert from 'node:assert/strict';
import { test } from 'node:test';

import { HIGH, ILayout, WIDE } from '../src/layout';
import { centred, fitted, holds, ISize, lost, revealed, sight, zoomed } from '../src/view';

const WINDOW: ISize = [400, 600];

/** A layout of this size, with a node `first` and a node `last` in opposite corners. */
function laid(width: number, height: number): ILayout {
  const places = new Map([
    ['first', { x: 0, y: 0 }],
    ['last', { x: width - WIDE, y: height - HIGH }]
  ]);
  return { places, ways: [], width, height };
}

test('a small lineage is shown whole and in the middle', () => {
  const all = laid(300, 500);
  const view = fitted(all, WINDOW, 'last', false);
  assert.ok(holds(sight(view, WINDOW), { left: 0, top: 0, right: 300, bottom: 500 }));
  assert.equal(view.k, 1);
  assert.equal(view.x, 50);
});

test('a long lineage stays readable, begins at what was asked for, and has its width in sight', () => {
  const all = laid(500, 40000);
  const view = fitted(all, WINDOW, 'last', false);
  const part = sight(view, WINDOW);
  assert.ok(view.k >= 0.6);
  assert.ok(part.left <= 0 && part.right >= 500);
  assert.ok(part.top < 40000 - HIGH && part.bottom >= 40000);
});

test('a long lineage of what comes from outside begins at its top', () => {
  const part = sight(fitted(laid(500, 40000), WINDOW, 'first', true), WINDOW);
  assert.ok(part.top <= 0 && part.bottom > HIGH);
});

test('a wide and long lineage has what was asked for in the middle', () => {
  const part = sight(fitted(laid(9000, 9000), WINDOW, 'last', false), WINDOW);
  assert.ok(Math.abs((part.left + part.right) / 2 - (9000 - WIDE / 2)) < 0.001);
});

test('the point under the pointer stays where it is while it is zoomed', () => {
  const before = { x: 30, y: -200, k: 0.8 };
  const after = zoomed(before, 1.25, [100, 100]);
  assert.ok(Math.abs((100 - before.x) / before.k - (100 - after.x) / after.k) < 1e-9);
  assert.ok(zoomed(before, 1e9, [0, 0]).k < 10 && zoomed(before, 1e-9, [0, 0]).k > 0);
});

test('what is in sight already is not moved, and what is not comes into sight', () => {
  const view = { x: 0, y: 0, k: 1 };
  assert.equal(revealed(view, { x: 20, y: 20 }, WINDOW), view);
  const place = { x: 2000, y: -900 };
  const part = sight(revealed(view, place, WINDOW), WINDOW);
  const node = { left: 2000, top: -900, right: 2000 + WIDE, bottom: -900 + HIGH };
  assert.ok(holds(part, node));
});

test('a point of the map comes into the middle', () => {
  const part = sight(centred({ x: 5, y: 5, k: 0.7 }, { x: 900, y: 70 }, WINDOW), WINDOW);
  assert.ok(Math.abs((part.left + part.right) / 2 - 900) < 1e-9);
});

test('one is lost where less than half of it is in sight', () => {
  const all = laid(1000, 1000);
  assert.ok(!lost({ left: -100, top: 0, right: 600, bottom: 900 }, all));
  assert.ok(lost({ left: 600, top: 0, right: 1300, bottom: 900 }, all));
  assert.ok(lost({ left: 0, top: -400, right: 1000, bottom: 400 }, all));
});
