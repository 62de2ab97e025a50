/** A lineage as a whole, small, and where in it one is. */
import * as React from 'react';

import { HIGH, ILayout, IPoint, WIDE } from './layout';

const WIDEST = 64;
const HIGHEST = 112;
const LEAST = 20;

interface IOverviewProps {
  laid: ILayout;
  /** Whether it stands above: what was asked for is below, then. */
  atTop: boolean;
  /** Show what is around a point of the layout. */
  go: (point: IPoint) => void;
}

/** Takes the part that is in sight by its reference: that changes with each frame of a movement. */
export const Overview = React.memo(
  React.forwardRef<SVGRectElement, IOverviewProps>(function Overview({ laid, atTop, go }, sight) {
    const scale = Math.min(WIDEST / laid.width, HIGHEST / laid.height);
    const boxes = React.useMemo(
      () =>
        [...laid.places.values()]
          .map(({ x, y }) => `M${Math.round(x)} ${Math.round(y)}h${WIDE}v${HIGH}h-${WIDE}z`)
          .join(''),
      [laid]
    );
    const at = (event: React.PointerEvent<SVGSVGElement>) => {
      event.stopPropagation();
      if (event.buttons & 1) {
        const bounds = event.currentTarget.getBoundingClientRect();
        go({
          x: ((event.clientX - bounds.left) / bounds.width) * laid.width,
          y: ((event.clientY - bounds.top) / bounds.height) * laid.height
        });
      }
    };
    return (
      <svg
        className={`jp-mlops-overview${atTop ? '' : ' jp-mod-below'}`}
        width={Math.max(LEAST, laid.width * scale)}
        height={Math.max(LEAST, laid.height * scale)}
        viewBox={`0 0 ${laid.width} ${laid.height}`}
        preserveAspectRatio="none"
        aria-hidden="true"
        onPointerDown={at}
        onPointerMove={at}
      >
        <path d={boxes} />
        <rect ref={sight} vectorEffect="non-scaling-stroke" />
      </svg>
    );
  })
);
