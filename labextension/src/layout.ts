/** Where the nodes of a lineage stand: in layers, what is older above what builds on it. No DOM. */

export const WIDE = 156;
export const HIGH = 40;
const BESIDE = 14;
const BELOW = 32;
/** Between two edges that pass a layer side by side. */
const LANE = 12;
/** Leaves of one node in a row; more of them stand in rows above. */
const ABREAST = 4;
/** Points at which long edges pass layers; beyond that many they go straight. */
const MOST_PASSING = 3000;

export interface IEdge {
  /** What came before. */
  source: string;
  target: string;
}

export interface IPoint {
  x: number;
  y: number;
}

export interface ILayout {
  /** The upper left corner of each node. */
  places: Map<string, IPoint>;
  /** Each edge, with the points it goes through. */
  ways: { edge: IEdge; points: IPoint[] }[];
  width: number;
  height: number;
}

/** What stands in a layer: a node, or a place where an edge passes. */
interface IItem {
  node: string | null;
  width: number;
  x: number;
  above: IItem[];
  below: IItem[];
  at: number;
}

/** For each node, those on the other side of its edges. */
export function neighbours(
  edges: readonly IEdge[],
  from: 'source' | 'target'
): Map<string, string[]> {
  const to = from === 'source' ? 'target' : 'source';
  const found = new Map<string, string[]>();
  for (const edge of edges) {
    const known = found.get(edge[from]);
    if (known) {
      known.push(edge[to]);
    } else {
      found.set(edge[from], [edge[to]]);
    }
  }
  return found;
}

/**
 * What is drawn while some nodes are folded: what they come from is hidden, unless something else comes from it too.
 *
 * Nodes that do not lead to the root follow from it instead, and are walked to as well.
 */
export function unfolded(
  root: string,
  edges: readonly IEdge[],
  folded: ReadonlySet<string>
): Set<string> {
  const sources = neighbours(edges, 'target');
  const targets = neighbours(edges, 'source');
  const seen = new Set([root]);
  const due = [root, ...(targets.get(root) ?? [])];
  due.forEach(one => seen.add(one));
  while (due.length) {
    const node = due.pop() as string;
    if (folded.has(node)) {
      continue;
    }
    for (const source of sources.get(node) ?? []) {
      if (!seen.has(source)) {
        seen.add(source);
        due.push(source);
      }
    }
  }
  return seen;
}

/** How many layers each node stands above the lowest that follow from it; a ring is cut where it is met first. */
export function depths(nodes: readonly string[], edges: readonly IEdge[]): Map<string, number> {
  const targets = neighbours(edges, 'source');
  const found = new Map<string, number>();
  const open = new Set<string>();
  for (const start of nodes) {
    const stack: [string, boolean][] = [[start, false]];
    while (stack.length) {
      const [node, ready] = stack.pop() as [string, boolean];
      if (ready) {
        let depth = 0;
        for (const target of targets.get(node) ?? []) {
          const below = found.get(target);
          if (below !== undefined) {
            depth = Math.max(depth, below + 1);
          }
        }
        open.delete(node);
        found.set(node, depth);
      } else if (!found.has(node) && !open.has(node)) {
        open.add(node);
        stack.push([node, true]);
        for (const target of targets.get(node) ?? []) {
          if (!found.has(target) && !open.has(target)) {
            stack.push([target, false]);
          }
        }
      }
    }
  }
  return found;
}

/** Leaves that only one node comes from stand in rows above one another, where they are many. */
function stackLeaves(
  nodes: readonly string[],
  edges: readonly IEdge[],
  depth: Map<string, number>
): void {
  const sources = neighbours(edges, 'target');
  const targets = neighbours(edges, 'source');
  const count = new Map<string, number>();
  for (const node of nodes) {
    const below = targets.get(node) ?? [];
    if (below.length === 1 && !sources.has(node)) {
      const at = count.get(below[0]) ?? 0;
      count.set(below[0], at + 1);
      depth.set(node, (depth.get(node) ?? 0) + Math.floor(at / ABREAST));
    }
  }
}

/**
 * Lay nodes out.
 *
 * @param loose Nodes that stand in rows of their own at the top, and whose edges move nothing.
 */
export function layout(
  nodes: readonly string[],
  edges: readonly IEdge[],
  loose: ReadonlySet<string> = new Set()
): ILayout {
  const firm = nodes.filter(node => !loose.has(node));
  const there = new Set(firm);
  const own = edges.filter(edge => there.has(edge.source) && there.has(edge.target));
  const depth = depths(firm, own);
  stackLeaves(firm, own, depth);
  const deepest = firm.reduce((most, node) => Math.max(most, depth.get(node) ?? 0), 0);
  const layers: IItem[][] = Array.from({ length: firm.length ? deepest + 1 : 0 }, () => []);
  const items = new Map<string, IItem>();
  const put = (layer: number, node: string | null): IItem => {
    const item = { node, width: node ? WIDE : LANE, x: 0, above: [], below: [], at: 0 };
    layers[layer].push(item);
    return item;
  };
  for (const node of firm) {
    items.set(node, put(deepest - (depth.get(node) ?? 0), node));
  }
  const layerOf = (node: string) => deepest - (depth.get(node) ?? 0);
  const passing = new Map<IEdge, IItem[]>();
  let passed = 0;
  for (const edge of own) {
    const from = layerOf(edge.source);
    const to = layerOf(edge.target);
    const chain = [items.get(edge.source) as IItem];
    if (to - from > 1 && passed + to - from - 1 <= MOST_PASSING) {
      passed += to - from - 1;
      for (let layer = from + 1; layer < to; layer++) {
        chain.push(put(layer, null));
      }
    }
    chain.push(items.get(edge.target) as IItem);
    passing.set(edge, chain);
    if (to > from) {
      for (let at = 0; at + 1 < chain.length; at++) {
        chain[at].below.push(chain[at + 1]);
        chain[at + 1].above.push(chain[at]);
      }
    }
  }
  order(layers);
  place(layers);

  const all = layers.flat();
  const left = all.reduce((least, item) => Math.min(least, item.x - item.width / 2), 0);
  const right = all.reduce((most, item) => Math.max(most, item.x + item.width / 2), left + WIDE);
  const free = nodes.filter(node => loose.has(node));
  const abreast = Math.max(1, Math.min(ABREAST, Math.floor((right - left) / WIDE)));
  const top = free.length ? Math.ceil(free.length / abreast) * (HIGH + BESIDE) + BESIDE : 0;
  const places = new Map<string, IPoint>();
  free.forEach((node, at) =>
    places.set(node, {
      x: (at % abreast) * (WIDE + BESIDE),
      y: Math.floor(at / abreast) * (HIGH + BESIDE)
    })
  );
  layers.forEach((layer, row) => {
    for (const item of layer) {
      if (item.node) {
        places.set(item.node, { x: item.x - WIDE / 2 - left, y: top + row * (HIGH + BELOW) });
      }
    }
  });
  const ways: ILayout['ways'] = [];
  const middle = (node: string): number => (places.get(node) as IPoint).x + WIDE / 2;
  for (const edge of edges) {
    const from = places.get(edge.source);
    const to = places.get(edge.target);
    if (from && to) {
      const chain = passing.get(edge) ?? [];
      const between = chain.slice(1, -1).map((item, at) => ({
        x: item.x - left,
        y: from.y + (at + 1) * (HIGH + BELOW) + HIGH / 2
      }));
      ways.push({
        edge,
        points: [
          { x: middle(edge.source), y: from.y + HIGH },
          ...between,
          { x: middle(edge.target), y: to.y }
        ]
      });
    }
  }
  const corners = [...places.values()];
  const width = corners.reduce((most, corner) => Math.max(most, corner.x + WIDE), right - left);
  const height = corners.reduce((most, corner) => Math.max(most, corner.y + HIGH), 0);
  return { places, ways, width, height };
}

/** Order each layer so that few edges cross: by the mean place of the neighbours, down and up again. */
function order(layers: IItem[][]): void {
  const number = (layer: IItem[]) => layer.forEach((item, at) => (item.at = at));
  layers.forEach(number);
  const sort = (layer: IItem[], side: 'above' | 'below') => {
    const wish = new Map<IItem, number>();
    for (const item of layer) {
      const others = item[side];
      wish.set(
        item,
        others.length ? others.reduce((sum, one) => sum + one.at, 0) / others.length : item.at
      );
    }
    layer.sort((one, other) => (wish.get(one) as number) - (wish.get(other) as number));
    number(layer);
  };
  for (let sweep = 0; sweep < 6; sweep++) {
    for (let at = 1; at < layers.length; at++) {
      sort(layers[at], 'above');
    }
    for (let at = layers.length - 2; at >= 0; at--) {
      sort(layers[at], 'below');
    }
  }
}

/** Place each layer's items as near to their neighbours as their order and widths allow. */
function place(layers: IItem[][]): void {
  for (const layer of layers) {
    let x = 0;
    layer.forEach((item, at) => {
      x += at ? apart(layer[at - 1], item) : 0;
      item.x = x;
    });
    layer.forEach(item => (item.x -= x / 2));
  }
  const settle = (layer: IItem[], sides: ('above' | 'below')[]) => {
    const wishes = layer.map(item => {
      const others = sides.flatMap(side => item[side]);
      return others.length ? others.reduce((sum, one) => sum + one.x, 0) / others.length : item.x;
    });
    spread(layer, wishes);
  };
  for (let sweep = 0; sweep < 8; sweep++) {
    for (let at = 1; at < layers.length; at++) {
      settle(layers[at], ['above']);
    }
    for (let at = layers.length - 2; at >= 0; at--) {
      settle(layers[at], ['below']);
    }
  }
  layers.forEach(layer => settle(layer, ['above', 'below']));
}

/** From the middle of an item to that of the next one. */
function apart(one: IItem, other: IItem): number {
  return (one.width + other.width) / 2 + (one.node || other.node ? BESIDE : 0);
}

/** The places nearest to what is wished for (by least squares) at which no two items of a layer touch. */
function spread(layer: IItem[], wishes: number[]): void {
  // Each item's wish, less the room of those before it: then only their order is left to keep.
  const offsets: number[] = [];
  let room = 0;
  layer.forEach((item, at) => {
    room += at ? apart(layer[at - 1], item) : 0;
    offsets.push(room);
  });
  const groups: { sum: number; count: number }[] = [];
  for (let at = 0; at < layer.length; at++) {
    groups.push({ sum: wishes[at] - offsets[at], count: 1 });
    while (groups.length > 1) {
      const last = groups[groups.length - 1];
      const before = groups[groups.length - 2];
      if (before.sum / before.count <= last.sum / last.count) {
        break;
      }
      groups.pop();
      before.sum += last.sum;
      before.count += last.count;
    }
  }
  let at = 0;
  for (const group of groups) {
    for (let end = at + group.count; at < end; at++) {
      layer[at].x = group.sum / group.count + offsets[at];
    }
  }
}

/** A smooth way through points, as the data of an SVG path. */
export function curve(points: readonly IPoint[]): string {
  const said = (value: number) => `${Math.round(value * 10) / 10}`;
  const [first, ...rest] = points;
  let path = `M${said(first.x)} ${said(first.y)}`;
  let last = first;
  for (const point of rest) {
    const half = (last.y + point.y) / 2;
    path += `C${said(last.x)} ${said(half)} ${said(point.x)} ${said(half)} ${said(point.x)} ${said(point.y)}`;
    last = point;
  }
  return path;
}

/** The node to which a key leads from another: along an edge up or down, or to the next of its layer. */
export function step(
  from: string,
  key: string,
  edges: readonly IEdge[],
  places: ReadonlyMap<string, IPoint>
): string {
  const here = places.get(from);
  if (!here) {
    return from;
  }
  let others: string[] = [];
  if (key === 'ArrowUp' || key === 'ArrowDown') {
    const side = neighbours(edges, key === 'ArrowUp' ? 'target' : 'source');
    others = (side.get(from) ?? []).filter(one => places.has(one));
  } else {
    const sign = key === 'ArrowRight' ? 1 : -1;
    for (const [node, place] of places) {
      if (place.y === here.y && sign * (place.x - here.x) > 0) {
        others.push(node);
      }
    }
  }
  const far = (node: string) => {
    const place = places.get(node) as IPoint;
    return Math.abs(place.x - here.x) + Math.abs(place.y - here.y);
  };
  return others.reduce((best, one) => (best === from || far(one) < far(best) ? one : best), from);
}

/**
 * A node and all that leads to it, as the lines of a tree: each node's own sources stand once.
 *
 * @param once Nodes that have one line only.
 */
export function outline(
  root: string,
  edges: readonly IEdge[],
  folded: ReadonlySet<string>,
  once: ReadonlySet<string> = new Set()
): { node: string; level: number; again: boolean; leaf: boolean }[] {
  const sources = neighbours(edges, 'target');
  const targets = neighbours(edges, 'source');
  const drawn = new Set<string>();
  const lines: { node: string; level: number; again: boolean; leaf: boolean }[] = [];
  const stack: [string, number][] = [
    ...(targets.get(root) ?? []).map((node): [string, number] => [node, 1]),
    [root, 1]
  ];
  while (stack.length) {
    const [node, level] = stack.pop() as [string, number];
    const again = drawn.has(node);
    if (again && once.has(node)) {
      continue;
    }
    const own = sources.get(node) ?? [];
    lines.push({ node, level, again, leaf: again || own.length === 0 });
    if (!again) {
      drawn.add(node);
      if (!folded.has(node)) {
        stack.push(...[...own].reverse().map((one): [string, number] => [one, level + 1]));
      }
    }
  }
  return lines;
}
