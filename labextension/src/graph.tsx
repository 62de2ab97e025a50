/** A lineage that is moved about in: with the mouse, with keys, as a picture or as lines. Only what is in sight is in the page. */
import * as React from 'react';

import { IPoint, step } from './layout';
import { Drawn, idOf, ILineageProps, lay, texts } from './nodes';
import { Overview } from './overview';
import { IBox, sizeOf, svgOf } from './picture';
import { coloursOf, download, pngFile, svgFile } from './saving';
import { Lineage } from './records';
import { Plain } from './controls';
import { Tree } from './tree';
import {
  centred,
  fitted,
  holds,
  IBounds,
  ISize,
  IView,
  lost,
  moved,
  readable,
  revealed,
  sight,
  zoomed
} from './view';
import { clean } from './words';

interface IGraphProps extends ILineageProps {
  /** Whether it is shown as lines. */
  listed: boolean;
}

/** What is drawn: what is in sight and around that. */
interface IWindow {
  within: IBounds;
  small: boolean;
}

const NOTHING: IWindow = { within: { left: 0, top: 0, right: 0, bottom: 0 }, small: false };

export function Graph(props: IGraphProps): JSX.Element {
  const { lineage, trans, active, folded, listed } = props;
  const all = React.useMemo(() => lay(lineage, folded), [lineage, folded]);
  const box = React.useRef<HTMLDivElement>(null);
  const group = React.useRef<SVGGElement>(null);
  const here = React.useRef<SVGRectElement>(null);
  const view = React.useRef<IView>({ x: 0, y: 0, k: 1 });
  const size = React.useRef<ISize>([0, 0]);
  const drawn = React.useRef(NOTHING);
  const shown = React.useRef<{ of: Lineage; all: typeof all } | null>(null);
  const [window_, setWindow] = React.useState(NOTHING);
  const [mapped, setMapped] = React.useState(false);

  /** Show what is in sight now; what is drawn follows where it has to. */
  const look = React.useCallback(
    (to: IView) => {
      view.current = to;
      const { x, y, k } = to;
      group.current?.setAttribute('transform', `translate(${x} ${y}) scale(${k})`);
      const part = sight(to, size.current);
      setMapped(lost(part, all.laid));
      place(here.current, part);
      const small = !readable(to);
      const { within } = drawn.current;
      const [across, down] = [part.right - part.left, part.bottom - part.top];
      const spacious = within.right - within.left > 4 * across;
      if (!holds(within, part) || spacious || small !== drawn.current.small) {
        drawn.current = {
          within: {
            left: part.left - across / 2,
            right: part.right + across / 2,
            top: part.top - down / 2,
            bottom: part.bottom + down / 2
          },
          small
        };
        setWindow(drawn.current);
      }
    },
    [all]
  );
  React.useLayoutEffect(() => place(here.current, sight(view.current, size.current)), [mapped]);

  const zoom = React.useCallback(
    (factor: number, at?: [number, number]) => {
      const [width, height] = size.current;
      look(zoomed(view.current, factor, at ?? [width / 2, height / 2]));
    },
    [look]
  );
  const fit = React.useCallback(
    () => look(fitted(all.laid, size.current, lineage.root, lineage.outside)),
    [look, all, lineage]
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
        fit();
      } else {
        look(view.current);
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
  }, [look, zoom, fit, listed]);

  // Another lineage is shown from its root; where something was folded, what is chosen stays where it was.
  React.useLayoutEffect(() => {
    const before = shown.current;
    if (before?.of !== lineage && size.current[0]) {
      fit();
    } else if (before && before.all !== all) {
      const was = before.all.laid.places.get(active);
      const is = all.laid.places.get(active);
      const { k } = view.current;
      look(was && is ? moved(view.current, (was.x - is.x) * k, (was.y - is.y) * k) : view.current);
    }
    shown.current = { of: lineage, all };
  }, [lineage, all, active, fit, look]);

  React.useEffect(() => {
    const corner = all.laid.places.get(active);
    if (!listed && corner && size.current[0]) {
      look(revealed(view.current, corner, size.current));
    }
  }, [active, all, look, listed]);

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
        look(moved(view.current, ...pan[event.key]));
      } else {
        props.setActive(step(active, event.key, all.edges, all.laid.places));
      }
    } else if (event.key === '+' || event.key === '=') {
      zoom(1.25);
    } else if (event.key === '-' || event.key === '_') {
      zoom(0.8);
    } else if (event.key === '0') {
      fit();
    } else if (!act(event.key)) {
      return;
    }
    event.preventDefault();
    event.stopPropagation();
  };

  const goTo = React.useCallback(
    (point: IPoint) => look(centred(view.current, point, size.current)),
    [look]
  );
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
      look(moved(from.view, across, down));
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
    return <Tree {...props} act={act} />;
  }
  const { within, small } = window_;
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
            <Drawn {...props} all={all} within={within} small={small} />
          </g>
        </svg>
        {mapped && <Overview ref={here} laid={all.laid} atTop={!lineage.outside} go={goTo} />}
      </div>
      <div className="jp-mlops-graph-tools" role="toolbar" aria-label={trans.__('Picture')}>
        <Plain aria-label={trans.__('Zoom out')} onClick={() => zoom(0.8)}>
          −
        </Plain>
        <Plain aria-label={trans.__('Zoom in')} onClick={() => zoom(1.25)}>
          +
        </Plain>
        <Plain title={trans.__('Show all of it, as far as it can be read')} onClick={fit}>
          {trans.__('Fit')}
        </Plain>
        <span className="jp-mlops-dim" role="status">
          {all.hidden > 0
            ? trans.__('%1 of %2 nodes', all.nodes.length, lineage.nodes.length)
            : trans._n('%1 node', '%1 nodes', all.nodes.length)}
        </span>
        <Plain title={trans.__('Save the picture as SVG')} onClick={() => save('svg')}>
          SVG
        </Plain>
        <Plain title={trans.__('Save the picture as PNG')} onClick={() => save('png')}>
          PNG
        </Plain>
      </div>
    </div>
  );
}

/** Put a rectangle where a part of the layout is. */
function place(rect: SVGRectElement | null, part: IBounds): void {
  rect?.setAttribute('x', `${part.left}`);
  rect?.setAttribute('y', `${part.top}`);
  rect?.setAttribute('width', `${Math.max(0, part.right - part.left)}`);
  rect?.setAttribute('height', `${Math.max(0, part.bottom - part.top)}`);
}
