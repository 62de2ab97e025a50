import assert from 'node:assert/strict';
import { test } from 'node:test';

import { curve, depths, HIGH, IEdge, layout, outline, step, unfolded, WIDE } from '../src/layout';
import { escaped, svgOf } from '../src/picture';

/** Edges from words: `a>b b>c`. */
function edgesOf(text: string): IEdge[] {
  return text.split(' ').map(word => {
    const [source, target] = word.split('>');
    return { source, target };
  });
}

function nodesOf(edges: IEdge[]): string[] {
  return [...new Set(edges.flatMap(edge => [edge.source, edge.target]))];
}

/** The same numbers at each run. */
function chance(seed: number): () => number {
  return () => {
    seed = (seed * 1103515245 + 12345) % 2147483648;
    return seed / 2147483648;
  };
}

/** A record as long as asked for: each node comes from one to three of the last twenty. */
function long(count: number): IEdge[] {
  const draw = chance(7);
  const edges: IEdge[] = [];
  for (let node = 1; node < count; node++) {
    const many = 1 + Math.floor(draw() * 3);
    for (let one = 0; one < many; one++) {
      const source = Math.max(0, node - 1 - Math.floor(draw() * 20));
      edges.push({ source: `${source}`, target: `${node}` });
    }
  }
  return edges;
}

test('what is older stands above what builds on it', () => {
  const edges = edgesOf('file>a a>x x>b other>b b>y a>z z>y');
  const { places } = layout(nodesOf(edges), edges);
  for (const edge of edges) {
    const [above, below] = [edge.source, edge.target].map(one => places.get(one)?.y ?? NaN);
    assert.ok(above < below, `${edge.source} above ${edge.target}`);
  }
  assert.equal(places.size, nodesOf(edges).length);
});

test('no two nodes of a lineage of 500 touch, and all lie within its size', () => {
  const edges = long(500);
  const { places, width, height, ways } = layout(nodesOf(edges), edges);
  const all = [...places.values()].sort((one, other) => one.y - other.y || one.x - other.x);
  for (let at = 1; at < all.length; at++) {
    if (all[at].y === all[at - 1].y) {
      assert.ok(all[at].x - all[at - 1].x >= WIDE, 'beside one another');
    } else {
      assert.ok(all[at].y - all[at - 1].y >= HIGH, 'above one another');
    }
  }
  for (const place of all) {
    assert.ok(place.x >= 0 && place.x + WIDE <= width + 0.001);
    assert.ok(place.y >= 0 && place.y + HIGH <= height);
  }
  assert.equal(ways.length, edges.length);
});

test('a record that was made to go round in a ring is drawn', () => {
  const edges = edgesOf('a>b b>c c>a c>d d>d');
  const { places } = layout(['a', 'b', 'c', 'd'], edges);
  assert.equal(places.size, 4);
  assert.equal(depths(['a', 'b', 'c', 'd'], edges).size, 4);
  assert.equal(outline('d', edges, new Set()).filter(line => !line.again).length, 4);
  assert.equal(unfolded('d', edges, new Set()).size, 4);
});

test('thirty files that one cell reads stand in rows, not in one line', () => {
  const edges = Array.from({ length: 30 }, (_, at) => ({ source: `f${at}`, target: 'cell' }));
  const { width, places } = layout(nodesOf(edges), edges);
  assert.ok(width < 10 * WIDE, `${width} wide`);
  assert.equal(places.size, 31);
});

test('loose nodes stand above all others, and move nothing', () => {
  const edges = edgesOf('a>b b>c env>a env>b env>c');
  const { places, ways } = layout(['a', 'b', 'c', 'env'], edges, new Set(['env']));
  const own = places.get('env')?.y ?? NaN;
  assert.ok(['a', 'b', 'c'].every(one => own + HIGH < (places.get(one)?.y ?? NaN)));
  assert.equal(ways.length, 5);
  assert.deepEqual(layout([], [], new Set()), {
    places: new Map(),
    ways: [],
    width: WIDE,
    height: 0
  });
});

test('what a folded node comes from is hidden, unless something else comes from it too', () => {
  const edges = edgesOf('old>a a>b shared>b shared>root b>root');
  assert.deepEqual(unfolded('root', edges, new Set(['b'])), new Set(['root', 'b', 'shared']));
  assert.deepEqual(unfolded('root', edges, new Set(['root'])), new Set(['root']));
});

test('those that read a file from outside are shown below it', () => {
  const edges = edgesOf('file>one file>two');
  assert.deepEqual(unfolded('file', edges, new Set()), new Set(['file', 'one', 'two']));
});

test('arrow keys follow edges up and down, and go along a layer', () => {
  const edges = edgesOf('a>c b>c c>d');
  const { places } = layout(['a', 'b', 'c', 'd'], edges);
  assert.equal(step('d', 'ArrowUp', edges, places), 'c');
  const up = step('c', 'ArrowUp', edges, places);
  assert.ok(['a', 'b'].includes(up));
  assert.equal(step('a', 'ArrowDown', edges, places), 'c');
  const [left, right] = ['a', 'b'].sort(
    (one, other) => (places.get(one)?.x ?? 0) - (places.get(other)?.x ?? 0)
  );
  assert.equal(step(left, 'ArrowRight', edges, places), right);
  assert.equal(step(right, 'ArrowLeft', edges, places), left);
  assert.equal(step(right, 'ArrowRight', edges, places), right);
  assert.equal(step('d', 'ArrowDown', edges, places), 'd');
});

test('as lines, each node tells where it comes from once', () => {
  const edges = edgesOf('a>b a>c b>d c>d');
  const lines = outline('d', edges, new Set()).map(
    line => `${line.level}${line.node}${line.again ? '!' : ''}`
  );
  assert.deepEqual(lines, ['1d', '2b', '3a', '2c', '3a!']);
  assert.deepEqual(
    outline('d', edges, new Set(), new Set(['a'])).map(line => line.node),
    ['d', 'b', 'a', 'c']
  );
  assert.deepEqual(
    outline('d', edges, new Set(['b'])).map(line => line.node),
    ['d', 'b', 'c', 'a']
  );
});

test('a way goes through its points', () => {
  assert.equal(
    curve([
      { x: 0, y: 0 },
      { x: 10, y: 20 }
    ]),
    'M0 0C0 10 10 10 10 20'
  );
});

test('in a picture, whatever is recorded is text', () => {
  const bad = '</text><script>alert(1)</script>&"\'\u0000\ud800';
  const laid = layout(['a'], []);
  const colours = { paper: '#fff', border: bad, text: '#000', font: bad, kinds: {} };
  const svg = svgOf(
    laid,
    [{ id: 'a', kind: 'x', label: bad, detail: bad }],
    new Set(),
    bad,
    colours
  );
  assert.ok(!svg.includes('<script'));
  assert.equal((svg.match(/<text /g) ?? []).length, 2);
  assert.equal(escaped('a\u0001\ud800😀<'), 'a\ufffd\ufffd😀&#60;');
});
