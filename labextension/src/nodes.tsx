/** The nodes and edges of a lineage: what they are called, and how they are drawn. */
import type { TranslationBundle } from '@jupyterlab/translation';
import * as React from 'react';

import { curve, HIGH, IEdge, ILayout, layout, unfolded, WIDE } from './layout';
import { Lineage, LineageNode } from './records';
import { IBounds } from './view';
import { clean, glyph, joined, mark, state } from './words';

/** Edges of an environment, commit or ticket that are always drawn; where there are more, only while it is chosen. */
const FEW = 3;
export const AROUND = new Set(['environment', 'commit', 'ticket']);

/** A lineage, what is chosen and folded in it, and what is done with it. */
export interface ILineageProps {
  lineage: Lineage;
  trans: TranslationBundle;
  active: string;
  setActive: (id: string) => void;
  folded: ReadonlySet<string>;
  fold: (id: string) => void;
  /** Do what Enter does. */
  open: (node: LineageNode) => void;
}

/** What a node is, in a word. */
export function kindOf(kind: string, trans: TranslationBundle): string {
  switch (kind) {
    case 'cell':
      return trans.__('cell run');
    case 'value':
      return trans.__('value');
    case 'file':
      return trans.__('file');
    case 'source':
      return trans.__('source');
    case 'module':
      return trans.__('module');
    case 'metric':
      return trans.__('metric');
    case 'model':
      return trans.__('model');
    case 'environment':
      return trans.__('environment');
    case 'commit':
      return trans.__('commit');
    case 'ticket':
      return trans.__('ticket');
    case 'gap':
      return trans.__('not known');
    case 'missing':
      return trans.__('not on record');
    case 'beyond':
      return trans.__('further back');
    case 'more':
      return trans.__('and more');
  }
  return clean(kind);
}

/** A lineage as it is laid out while some of it is folded. */
export interface ILaid {
  laid: ILayout;
  nodes: LineageNode[];
  edges: IEdge[];
  byId: Map<string, LineageNode>;
  loose: Set<string>;
  sources: Map<string, number>;
  counts: Map<string, number>;
  hidden: number;
}

/** Lay a lineage out. */
export function lay(lineage: Lineage, folded: ReadonlySet<string>): ILaid {
  const shown = unfolded(lineage.root, lineage.edges, folded);
  const nodes = lineage.nodes.filter(node => shown.has(node.id));
  const edges = lineage.edges.filter(edge => shown.has(edge.source) && shown.has(edge.target));
  const counts = new Map<string, number>();
  const sources = new Map<string, number>();
  for (const edge of lineage.edges) {
    counts.set(edge.source, (counts.get(edge.source) ?? 0) + 1);
    sources.set(edge.target, (sources.get(edge.target) ?? 0) + 1);
  }
  const loose = new Set(
    nodes
      .filter(node => AROUND.has(node.kind) && (counts.get(node.id) ?? 0) > FEW)
      .map(node => node.id)
  );
  return {
    laid: layout(
      nodes.map(node => node.id),
      edges,
      loose
    ),
    nodes,
    edges,
    byId: new Map(nodes.map(node => [node.id, node])),
    loose,
    sources,
    counts,
    hidden: lineage.nodes.length - nodes.length
  };
}

/** The second line of a node. */
function detailOf(node: LineageNode, laid: ILaid, trans: TranslationBundle): string {
  const around = laid.loose.has(node.id)
    ? trans._n('of %1 cell run', 'of %1 cell runs', laid.counts.get(node.id) ?? 0)
    : '';
  return joined([kindOf(node.kind, trans), around || clean(node.detail)], ' · ');
}

/** What is known of a node beside its name. */
export function about(node: LineageNode, trans: TranslationBundle): string {
  const parts = [kindOf(node.kind, trans), clean(node.detail)];
  if (node.kind === 'cell') {
    parts.push(state(node.status, trans), ...node.marks.map(name => mark(name, trans)[0]));
  }
  return joined(parts);
}

/** A node in words, for who hears it. */
function said(node: LineageNode, trans: TranslationBundle): string {
  return `${clean(node.label)}, ${about(node, trans)}`;
}

const measured = new Map<string, number>();
let pen: CanvasRenderingContext2D | null = null;

/** Cut a text to a width. */
function fit(text: string, width: number, font: string): string {
  pen = pen ?? document.createElement('canvas').getContext('2d');
  const context = pen;
  if (!context) {
    return text.slice(0, Math.floor(width / 7));
  }
  context.font = font;
  const wide = (part: string) => {
    const key = `${font}\n${part}`;
    let found = measured.get(key);
    if (found === undefined) {
      found = context.measureText(part).width;
      if (measured.size > 20000) {
        measured.clear();
      }
      measured.set(key, found);
    }
    return found;
  };
  if (wide(text) <= width) {
    return text;
  }
  let low = 0;
  let high = Math.min(text.length, 80);
  while (low < high) {
    const middle = (low + high + 1) >> 1;
    if (wide(`${text.slice(0, middle)}…`) <= width) {
      low = middle;
    } else {
      high = middle - 1;
    }
  }
  return `${text.slice(0, low)}…`;
}

/** The page's id of a node: what is recorded is in no id, and two lineages of one page have none in common. */
export function idOf(node: string, lineage: Lineage): string {
  let known = ids.get(lineage);
  if (!known) {
    const name = `jp-mlops-node-${++drawings}`;
    known = new Map(lineage.nodes.map((one, at) => [one.id, `${name}-${at}`]));
    ids.set(lineage, known);
  }
  return known.get(node) ?? '';
}

const ids = new WeakMap<Lineage, Map<string, string>>();
let drawings = 0;

/** The two lines of a node, cut to its width. */
export function texts(
  node: LineageNode,
  all: ILaid,
  family: string,
  trans: TranslationBundle
): { label: string; detail: string } {
  const room = WIDE - 20 - (node.kind === 'cell' ? 14 : 0);
  return {
    label: fit(clean(node.label), room, `13px ${family}`),
    detail: fit(detailOf(node, all, trans), WIDE - 20, `11px ${family}`)
  };
}

export interface IDrawnProps extends ILineageProps {
  all: ILaid;
  /** What of the layout is drawn, and whether its texts can be read. */
  within: IBounds;
  small: boolean;
}

/** The nodes and edges in sight. */
export function Drawn(props: IDrawnProps): JSX.Element {
  const { all, lineage, active, folded, trans, small } = props;
  const { left, right, top, bottom } = props.within;
  const family = React.useMemo(
    () => getComputedStyle(document.body).getPropertyValue('--jp-ui-font-family') || 'sans-serif',
    []
  );
  const calls = React.useRef(props);
  calls.current = props;
  const edges = all.laid.ways.filter(({ edge, points }) => {
    const touched = edge.source === active || edge.target === active;
    if (all.loose.has(edge.source) && !touched) {
      return false;
    }
    let [west, east] = [Infinity, -Infinity];
    for (const point of points) {
      west = Math.min(west, point.x);
      east = Math.max(east, point.x);
    }
    const [first, last] = [points[0], points[points.length - 1]];
    return east >= left && west <= right && last.y >= top && first.y <= bottom;
  });
  const nodes = all.nodes.filter(node => {
    const place = all.laid.places.get(node.id);
    return (
      place &&
      (node.id === active ||
        (place.x + WIDE >= left && place.x <= right && place.y + HIGH >= top && place.y <= bottom))
    );
  });
  return (
    <>
      {edges.map(({ edge, points }) => (
        <path
          key={`${edge.source}\n${edge.target}`}
          className={`jp-mlops-edge${edge.source === active || edge.target === active ? ' jp-mod-active' : ''}`}
          d={curve(points)}
        />
      ))}
      {nodes.map(node => {
        const place = all.laid.places.get(node.id);
        return (
          place && (
            <Node
              key={node.id}
              node={node}
              id={idOf(node.id, lineage)}
              x={place.x}
              y={place.y}
              label={small ? '' : texts(node, all, family, trans).label}
              detail={small ? '' : texts(node, all, family, trans).detail}
              said={said(node, trans)}
              active={node.id === active}
              root={node.id === lineage.root}
              foldable={!small && all.sources.has(node.id)}
              folded={folded.has(node.id)}
              calls={calls}
            />
          )
        );
      })}
    </>
  );
}

interface INodeProps {
  node: LineageNode;
  id: string;
  x: number;
  y: number;
  label: string;
  detail: string;
  said: string;
  active: boolean;
  root: boolean;
  foldable: boolean;
  folded: boolean;
  calls: React.MutableRefObject<IDrawnProps>;
}

const Node = React.memo(function Node(props: INodeProps): JSX.Element {
  const { node, calls } = props;
  const names = ['jp-mlops-node', `jp-mod-${/^[a-z]+$/.test(node.kind) ? node.kind : 'other'}`];
  if (props.active) {
    names.push('jp-mod-active');
  }
  if (props.root) {
    names.push('jp-mod-root');
  }
  return (
    <g
      id={props.id}
      className={names.join(' ')}
      transform={`translate(${props.x} ${props.y})`}
      role="img"
      aria-label={props.folded ? `${props.said} (+)` : props.said}
      onClick={() => calls.current.setActive(node.id)}
      onDoubleClick={() => calls.current.open(node)}
    >
      <title>{props.said}</title>
      <rect className="jp-mlops-node-box" width={WIDE} height={HIGH} rx={4} />
      <rect className="jp-mlops-node-kind" width={props.label ? 4 : WIDE} height={HIGH} />
      {props.label && (
        <>
          <text x={12} y={17}>
            {props.label}
          </text>
          <text x={12} y={32} className="jp-mlops-node-detail">
            {props.detail}
          </text>
          {node.kind === 'cell' && (
            <text
              x={WIDE - 8}
              y={17}
              textAnchor="end"
              className={`jp-mlops-state jp-mod-${node.status}`}
            >
              {glyph(node.status)}
            </text>
          )}
        </>
      )}
      {props.foldable && (
        <g
          className={`jp-mlops-fold${props.folded ? ' jp-mod-folded' : ''}`}
          transform={`translate(${WIDE / 2} 0)`}
          onClick={event => {
            event.stopPropagation();
            calls.current.setActive(node.id);
            calls.current.fold(node.id);
          }}
        >
          <circle r={8} />
          <text y={4} textAnchor="middle">
            {props.folded ? '+' : '−'}
          </text>
        </g>
      )}
    </g>
  );
});
