/** Draws a lineage, and has it moved about in. Only what is in sight is in the page. */
import type { TranslationBundle } from '@jupyterlab/translation';
import * as React from 'react';

import { curve, HIGH, IEdge, ILayout, layout, outline, step, unfolded, WIDE } from './layout';
import { IBox, IColours, sizeOf, svgOf } from './picture';
import { Lineage, LineageNode } from './records';
import { clean, glyph, mark, state } from './words';

/** Zoom at which texts are no longer drawn, and the least and most there is. */
const UNREADABLE = 0.42;
const LEAST = 0.005;
const MOST = 2.5;
/** Edges of an environment, commit or ticket that are always drawn; where there are more, only while it is chosen. */
const FEW = 3;
const AROUND = new Set(['environment', 'commit', 'ticket']);
/** Pixels of a side that browsers draw. */
const CANVAS = 8192;

export interface IGraphProps {
  lineage: Lineage;
  trans: TranslationBundle;
  active: string;
  setActive: (id: string) => void;
  folded: ReadonlySet<string>;
  fold: (id: string) => void;
  /** Do what Enter does. */
  open: (node: LineageNode) => void;
  listed: boolean;
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
interface ILaid {
  laid: ILayout;
  nodes: LineageNode[];
  edges: IEdge[];
  byId: Map<string, LineageNode>;
  loose: Set<string>;
  sources: Map<string, number>;
  counts: Map<string, number>;
  hidden: number;
}

function lay(lineage: Lineage, folded: ReadonlySet<string>): ILaid {
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
  return [kindOf(node.kind, trans), around || clean(node.detail)].filter(part => part).join(' · ');
}

/** What is known of a node beside its name. */
export function about(node: LineageNode, trans: TranslationBundle): string {
  const parts = [kindOf(node.kind, trans), clean(node.detail)];
  if (node.kind === 'cell') {
    parts.push(state(node.status, trans), ...node.marks.map(name => mark(name, trans)[0]));
  }
  return parts.filter(part => part).join(', ');
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

interface IView {
  x: number;
  y: number;
  k: number;
}

/** What is drawn: a rectangle of the layout, and whether its texts can be read. */
interface IWindow {
  left: number;
  top: number;
  right: number;
  bottom: number;
  small: boolean;
}

const NOTHING: IWindow = { left: 0, top: 0, right: 0, bottom: 0, small: false };

export function Graph(props: IGraphProps): JSX.Element {
  const { lineage, trans, active, folded, listed } = props;
  const all = React.useMemo(() => lay(lineage, folded), [lineage, folded]);
  const box = React.useRef<HTMLDivElement>(null);
  const group = React.useRef<SVGGElement>(null);
  const view = React.useRef<IView>({ x: 0, y: 0, k: 1 });
  const size = React.useRef<[number, number]>([0, 0]);
  const drawn = React.useRef<IWindow>(NOTHING);
  const shownAt = React.useRef<{ of: Lineage | null; laid: ILayout | null }>({
    of: null,
    laid: null
  });
  const [window_, setWindow] = React.useState<IWindow>(NOTHING);

  const apply = React.useCallback(() => {
    const { x, y, k } = view.current;
    const [width, height] = size.current;
    group.current?.setAttribute('transform', `translate(${x} ${y}) scale(${k})`);
    const sight = { left: -x / k, top: -y / k, right: (width - x) / k, bottom: (height - y) / k };
    const known = drawn.current;
    const small = k < UNREADABLE;
    const inside =
      sight.left >= known.left &&
      sight.right <= known.right &&
      sight.top >= known.top &&
      sight.bottom <= known.bottom;
    const spacious = known.right - known.left > 4 * (sight.right - sight.left);
    if (!inside || spacious || small !== known.small) {
      const across = (sight.right - sight.left) / 2;
      const down = (sight.bottom - sight.top) / 2;
      drawn.current = {
        left: sight.left - across,
        right: sight.right + across,
        top: sight.top - down,
        bottom: sight.bottom + down,
        small
      };
      setWindow(drawn.current);
    }
  }, []);

  const zoom = React.useCallback(
    (factor: number, at?: [number, number]) => {
      const one = view.current;
      const [width, height] = size.current;
      const [px, py] = at ?? [width / 2, height / 2];
      const k = Math.min(MOST, Math.max(LEAST, one.k * factor));
      view.current = {
        k,
        x: px - ((px - one.x) * k) / one.k,
        y: py - ((py - one.y) * k) / one.k
      };
      apply();
    },
    [apply]
  );

  const fitAll = React.useCallback(
    (least: number) => {
      const [width, height] = size.current;
      const { laid } = all;
      const whole = Math.min((width - 24) / laid.width, (height - 24) / laid.height, 1);
      if (whole >= least) {
        const k = Math.max(LEAST, whole);
        view.current = {
          k,
          x: (width - laid.width * k) / 2,
          y: (height - laid.height * k) / 2
        };
      } else {
        // too much to be read at once: begin at what was asked for, and what it came from right above
        const place = laid.places.get(lineage.root) ?? { x: 0, y: 0 };
        const k = Math.max(0.75, Math.min(0.9, (width - 16) / laid.width));
        const middle = laid.width * k <= width ? laid.width / 2 : place.x + WIDE / 2;
        view.current = {
          k,
          x: width / 2 - middle * k,
          y: lineage.outside ? 12 : height - 16 - (place.y + HIGH) * k
        };
      }
      apply();
    },
    [all, lineage, apply]
  );

  /** Bring a node into sight. */
  const reveal = React.useCallback(
    (id: string) => {
      const place = all.laid.places.get(id);
      const [width, height] = size.current;
      if (!place || !width) {
        return;
      }
      const { x, y, k } = view.current;
      const left = place.x * k + x;
      const top = place.y * k + y;
      const into = (low: number, long: number, room: number) =>
        low < 8 ? 8 - low : low + long > room - 8 ? room - 8 - low - long : 0;
      const across = into(left, WIDE * k, width);
      const down = into(top, HIGH * k, height);
      if (across || down) {
        view.current = { k, x: x + across, y: y + down };
        apply();
      }
    },
    [all, apply]
  );

  React.useLayoutEffect(() => {
    const node = box.current;
    if (!node || listed) {
      return undefined;
    }
    const measure = () => {
      const first = size.current[0] === 0;
      size.current = [node.clientWidth, node.clientHeight];
      if (first && node.clientWidth) {
        fitAll(0.6);
      } else {
        apply();
      }
    };
    const observer = new ResizeObserver(measure);
    observer.observe(node);
    measure();
    const onWheel = (event: WheelEvent) => {
      event.preventDefault();
      const bounds = node.getBoundingClientRect();
      const by = Math.max(-120, Math.min(120, event.deltaY)) * (event.deltaMode ? 20 : 1);
      zoom(Math.exp(-by / 400), [event.clientX - bounds.left, event.clientY - bounds.top]);
    };
    node.addEventListener('wheel', onWheel, { passive: false });
    return () => {
      observer.disconnect();
      node.removeEventListener('wheel', onWheel);
    };
  }, [apply, zoom, fitAll, listed]);

  // Another lineage is shown from its root; where something was folded, what is chosen stays where it was.
  React.useLayoutEffect(() => {
    const before = shownAt.current;
    if (before.of !== lineage && size.current[0]) {
      fitAll(0.6);
    } else if (before.laid && before.laid !== all.laid) {
      const was = before.laid.places.get(active);
      const is = all.laid.places.get(active);
      if (was && is) {
        const { x, y, k } = view.current;
        view.current = { k, x: x + (was.x - is.x) * k, y: y + (was.y - is.y) * k };
      }
      apply();
    }
    shownAt.current = { of: lineage, laid: all.laid };
  }, [lineage, all, active, fitAll, apply]);

  React.useEffect(() => {
    if (!listed) {
      reveal(active);
    }
  }, [active, reveal, listed]);

  const act = (key: string): boolean => {
    const node = all.byId.get(active);
    switch (key) {
      case 'Enter':
        if (node) {
          props.open(node);
        }
        return true;
      case ' ':
        if (all.sources.has(active)) {
          props.fold(active);
        }
        return true;
      case 'Home':
        props.setActive(lineage.root);
        return true;
    }
    return false;
  };
  const onKeyDown = (event: React.KeyboardEvent) => {
    const pan: Record<string, [number, number]> = {
      ArrowUp: [0, 60],
      ArrowDown: [0, -60],
      ArrowLeft: [60, 0],
      ArrowRight: [-60, 0]
    };
    if (event.ctrlKey || event.metaKey || event.altKey) {
      return;
    }
    if (event.key in pan) {
      if (event.shiftKey) {
        const { x, y, k } = view.current;
        view.current = { k, x: x + pan[event.key][0], y: y + pan[event.key][1] };
        apply();
      } else {
        props.setActive(step(active, event.key, all.edges, all.laid.places));
      }
    } else if (event.key === '+' || event.key === '=') {
      zoom(1.25);
    } else if (event.key === '-' || event.key === '_') {
      zoom(0.8);
    } else if (event.key === '0') {
      fitAll(0);
    } else if (!act(event.key)) {
      return;
    }
    event.preventDefault();
    event.stopPropagation();
  };

  const held = React.useRef<{ x: number; y: number; view: IView; moved: boolean } | null>(null);
  const onPointerDown = (event: React.PointerEvent<HTMLDivElement>) => {
    if (event.button === 0) {
      held.current = { x: event.clientX, y: event.clientY, view: view.current, moved: false };
    }
  };
  const onPointerMove = (event: React.PointerEvent<HTMLDivElement>) => {
    const from = held.current;
    if (!from) {
      return;
    }
    const across = event.clientX - from.x;
    const down = event.clientY - from.y;
    if (!from.moved && Math.abs(across) + Math.abs(down) > 4) {
      from.moved = true;
      event.currentTarget.setPointerCapture(event.pointerId);
    }
    if (from.moved) {
      view.current = { k: from.view.k, x: from.view.x + across, y: from.view.y + down };
      apply();
    }
  };
  const onPointerUp = () => {
    const moved = held.current?.moved === true;
    held.current = null;
    if (!moved) {
      box.current?.focus();
    }
  };

  const save = (as: 'svg' | 'png') => {
    const node = box.current;
    if (!node) {
      return;
    }
    const style = getComputedStyle(node);
    const font = style.fontFamily;
    const boxes = all.nodes.map((one): IBox => {
      return { id: one.id, kind: one.kind, ...texts(one, all, font, trans) };
    });
    const svg = svgOf(all.laid, boxes, all.loose, clean(lineage.title), coloursOf(style));
    const name = clean(lineage.of)
      .replace(/@.*/, '')
      .replace(/[^\w.-]+/g, '-')
      .slice(0, 60);
    void (as === 'svg' ? svgFile(svg) : pngFile(svg, sizeOf(all.laid))).then(blob =>
      download(blob, `lineage-${name || 'of'}.${as}`)
    );
  };

  if (listed) {
    return <Listed {...props} act={act} />;
  }
  return (
    <div className="jp-mlops-graph-frame">
      <div
        ref={box}
        className="jp-mlops-graph"
        role="application"
        tabIndex={0}
        aria-roledescription={trans.__('graph')}
        aria-label={trans.__(
          'Lineage of %1: arrow keys follow its edges, Enter opens, Space folds what a node comes from, plus and minus zoom',
          clean(lineage.title)
        )}
        aria-activedescendant={all.byId.has(active) ? idOf(active, lineage) : undefined}
        onKeyDown={onKeyDown}
        onPointerDown={onPointerDown}
        onPointerMove={onPointerMove}
        onPointerUp={onPointerUp}
        onPointerCancel={onPointerUp}
      >
        <svg width="100%" height="100%" role="presentation">
          <g ref={group}>
            <Drawn
              all={all}
              lineage={lineage}
              window={window_}
              active={active}
              folded={folded}
              trans={trans}
              choose={props.setActive}
              fold={props.fold}
              open={props.open}
            />
          </g>
        </svg>
      </div>
      <div className="jp-mlops-graph-tools" role="toolbar" aria-label={trans.__('Picture')}>
        <button
          className="jp-mlops-plain"
          aria-label={trans.__('Zoom out')}
          onClick={() => zoom(0.8)}
        >
          −
        </button>
        <button
          className="jp-mlops-plain"
          aria-label={trans.__('Zoom in')}
          onClick={() => zoom(1.25)}
        >
          +
        </button>
        <button
          className="jp-mlops-plain"
          title={trans.__('Show all of it')}
          onClick={() => fitAll(0)}
        >
          {trans.__('Fit')}
        </button>
        <span className="jp-mlops-dim" role="status">
          {all.hidden > 0
            ? trans.__('%1 of %2 nodes', all.nodes.length, lineage.nodes.length)
            : trans._n('%1 node', '%1 nodes', all.nodes.length)}
        </span>
        <button
          className="jp-mlops-plain"
          title={trans.__('Save the picture as SVG')}
          onClick={() => save('svg')}
        >
          SVG
        </button>
        <button
          className="jp-mlops-plain"
          title={trans.__('Save the picture as PNG')}
          onClick={() => save('png')}
        >
          PNG
        </button>
      </div>
    </div>
  );
}

/** The page's id of a node: what is recorded is in no id. */
function idOf(node: string, lineage: Lineage): string {
  let known = numbers.get(lineage);
  if (!known) {
    known = new Map(lineage.nodes.map((one, at) => [one.id, at]));
    numbers.set(lineage, known);
  }
  return `jp-mlops-node-${known.get(node) ?? 'none'}`;
}

const numbers = new WeakMap<Lineage, Map<string, number>>();

function texts(
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

interface IDrawnProps {
  all: ILaid;
  lineage: Lineage;
  window: IWindow;
  active: string;
  folded: ReadonlySet<string>;
  trans: TranslationBundle;
  choose: (id: string) => void;
  fold: (id: string) => void;
  open: (node: LineageNode) => void;
}

/** The nodes and edges in sight. */
function Drawn(props: IDrawnProps): JSX.Element {
  const { all, lineage, active, folded, trans } = props;
  const { left, right, top, bottom, small } = props.window;
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
      onClick={() => calls.current.choose(node.id)}
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
            calls.current.choose(node.id);
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

/** The same as a tree of lines. */
function Listed(props: IGraphProps & { act: (key: string) => boolean }): JSX.Element {
  const { lineage, trans, active, folded } = props;
  const byId = React.useMemo(() => new Map(lineage.nodes.map(one => [one.id, one])), [lineage]);
  const around = React.useMemo(
    () => new Set(lineage.nodes.filter(one => AROUND.has(one.kind)).map(one => one.id)),
    [lineage]
  );
  const lines = React.useMemo(
    () => outline(lineage.root, lineage.edges, folded, around),
    [lineage, folded, around]
  );
  const [place, setPlace] = React.useState(0);
  const box = React.useRef<HTMLUListElement>(null);
  const at = Math.min(
    lines[place]?.node === active ? place : lines.findIndex(one => one.node === active),
    lines.length - 1
  );
  const go = (to: number) => {
    const next = Math.max(0, Math.min(lines.length - 1, to));
    setPlace(next);
    props.setActive(lines[next].node);
    box.current?.children[next]?.scrollIntoView({ block: 'nearest' });
  };
  const onKeyDown = (event: React.KeyboardEvent) => {
    const line = lines[Math.max(0, at)];
    const closed = folded.has(line.node);
    if (event.key === 'ArrowDown' || event.key === 'ArrowUp') {
      go(at + (event.key === 'ArrowDown' ? 1 : -1));
    } else if (event.key === 'End') {
      go(lines.length - 1);
    } else if (event.key === 'ArrowRight' && !line.leaf) {
      if (closed) {
        props.fold(line.node);
      } else {
        go(at + 1);
      }
    } else if (event.key === 'ArrowLeft') {
      if (!line.leaf && !closed) {
        props.fold(line.node);
      } else {
        let up = at;
        while (up > 0 && lines[up].level >= line.level) {
          up--;
        }
        go(up);
      }
    } else if (!props.act(event.key)) {
      return;
    }
    event.preventDefault();
    event.stopPropagation();
  };
  return (
    <ul
      ref={box}
      className="jp-mlops-tree"
      role="tree"
      tabIndex={0}
      aria-label={trans.__('Lineage of %1', clean(lineage.title))}
      aria-activedescendant={at >= 0 ? `jp-mlops-line-${at}` : undefined}
      onKeyDown={onKeyDown}
    >
      {lines.map((line, number) => {
        const node = byId.get(line.node);
        return (
          node && (
            <li
              key={number}
              id={`jp-mlops-line-${number}`}
              role="treeitem"
              aria-level={line.level}
              aria-selected={number === at}
              aria-expanded={line.leaf ? undefined : !folded.has(line.node)}
              className={number === at ? 'jp-mod-active' : ''}
              style={{ paddingLeft: 12 + Math.min(line.level - 1, 12) * 10 }}
              onClick={() => {
                setPlace(number);
                props.setActive(line.node);
              }}
              onDoubleClick={() => props.open(node)}
            >
              <span
                aria-hidden="true"
                className="jp-mlops-twist"
                onClick={() => !line.leaf && props.fold(line.node)}
              >
                {line.leaf ? '' : folded.has(line.node) ? '▸' : '▾'}
              </span>
              <span className="jp-mlops-name">{clean(node.label)}</span>{' '}
              <span className="jp-mlops-dim">
                {[kindOf(node.kind, trans), line.again ? trans.__('as above') : clean(node.detail)]
                  .filter(part => part)
                  .join(' · ')}
              </span>
            </li>
          )
        );
      })}
    </ul>
  );
}

/** The theme's colours as they are now. */
function coloursOf(style: CSSStyleDeclaration): IColours {
  const of = (name: string) => style.getPropertyValue(`--jp-${name}`);
  return {
    paper: of('layout-color1'),
    border: of('border-color0'),
    text: of('ui-font-color1'),
    font: style.fontFamily,
    kinds: {
      cell: of('brand-color1'),
      value: of('success-color1'),
      metric: of('success-color1'),
      model: of('accent-color1'),
      file: of('warn-color1'),
      source: of('warn-color1'),
      environment: of('info-color1'),
      commit: of('info-color1'),
      ticket: of('info-color1'),
      gap: of('error-color1'),
      missing: of('error-color1')
    }
  };
}

async function svgFile(svg: string): Promise<Blob> {
  return new Blob([svg], { type: 'image/svg+xml' });
}

async function pngFile(svg: string, [width, height]: [number, number]): Promise<Blob> {
  const scale = Math.min(2, CANVAS / width, CANVAS / height);
  const image = new Image();
  image.src = `data:image/svg+xml;charset=utf-8,${encodeURIComponent(svg)}`;
  await image.decode();
  const canvas = document.createElement('canvas');
  canvas.width = Math.max(1, Math.floor(width * scale));
  canvas.height = Math.max(1, Math.floor(height * scale));
  canvas.getContext('2d')?.drawImage(image, 0, 0, canvas.width, canvas.height);
  return new Promise((done, failed) =>
    canvas.toBlob(blob => (blob ? done(blob) : failed(new Error('no picture'))), 'image/png')
  );
}

function download(blob: Blob, name: string): void {
  const link = document.createElement('a');
  link.href = URL.createObjectURL(blob);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
}
