/** What of a layout is in sight, and how large. No DOM. */
import { HIGH, ILayout, IPoint, WIDE } from './layout';

/** Where the layout's origin is in the window, and how large a unit of it is. */
export interface IView {
  x: number;
  y: number;
  k: number;
}

/** Width and height of the window. */
export type ISize = [number, number];

export interface IBounds {
  left: number;
  top: number;
  right: number;
  bottom: number;
}

/** Zoom at which texts are no longer drawn, and the least and most there is. */
const UNREADABLE = 0.42;
const LEAST = 0.005;
const MOST = 2.5;
/** The least zoom at which everything is shown at once, and that at which more than that is begun with. */
const FITTED = 0.6;
const BEGUN = 0.9;
/** Left free at the edges. */
const EDGE = 12;

/** Whether texts can be read. */
export function readable(view: IView): boolean {
  return view.k >= UNREADABLE;
}

/** The part of the layout that is in the window. */
export function sight({ x, y, k }: IView, [width, height]: ISize): IBounds {
  return { left: -x / k, top: -y / k, right: (width - x) / k, bottom: (height - y) / k };
}

/** Whether one part has all of another in it. */
export function holds(one: IBounds, other: IBounds): boolean {
  return (
    other.left >= one.left &&
    other.right <= one.right &&
    other.top >= one.top &&
    other.bottom <= one.bottom
  );
}

/** Whether so little of a layout is in sight that one may not know where one is. */
export function lost({ left, top, right, bottom }: IBounds, { width, height }: ILayout): boolean {
  const across = Math.min(right, width) - Math.max(left, 0);
  const down = Math.min(bottom, height) - Math.max(top, 0);
  return 2 * across < width || 2 * down < height;
}

/** Larger or smaller, with a point of the window staying where it is. */
export function zoomed(view: IView, factor: number, [px, py]: [number, number]): IView {
  const k = Math.min(MOST, Math.max(LEAST, view.k * factor));
  return { k, x: px - ((px - view.x) * k) / view.k, y: py - ((py - view.y) * k) / view.k };
}

/** Moved by so much of the window. */
export function moved(view: IView, across: number, down: number): IView {
  return { k: view.k, x: view.x + across, y: view.y + down };
}

/** With a point of the layout in the middle of the window. */
export function centred(view: IView, point: IPoint, [width, height]: ISize): IView {
  return { k: view.k, x: width / 2 - point.x * view.k, y: height / 2 - point.y * view.k };
}

/**
 * All of a layout, as far as it can be read then; of a larger one, its beginning, and what is next to that.
 *
 * @param first The node to begin with.
 * @param atTop Whether that is the uppermost one, and not the lowest.
 */
export function fitted(
  laid: ILayout,
  [width, height]: ISize,
  first: string,
  atTop: boolean
): IView {
  const across = (width - 2 * EDGE) / laid.width;
  const whole = Math.min(across, (height - 2 * EDGE) / laid.height, 1);
  if (whole >= FITTED) {
    return {
      k: whole,
      x: (width - laid.width * whole) / 2,
      y: (height - laid.height * whole) / 2
    };
  }
  const place = laid.places.get(first) ?? { x: 0, y: 0 };
  const narrow = across >= FITTED;
  const k = narrow ? Math.min(BEGUN, across) : (FITTED + BEGUN) / 2;
  const middle = narrow ? laid.width / 2 : place.x + WIDE / 2;
  return {
    k,
    x: width / 2 - middle * k,
    y: atTop ? EDGE - place.y * k : height - EDGE - (place.y + HIGH) * k
  };
}

/** As near to how it was as has a node in sight. */
export function revealed(view: IView, place: IPoint, [width, height]: ISize): IView {
  const into = (low: number, long: number, room: number) =>
    low < 8 ? 8 - low : low + long > room - 8 ? room - 8 - low - long : 0;
  const { k } = view;
  const across = into(place.x * k + view.x, WIDE * k, width);
  const down = into(place.y * k + view.y, HIGH * k, height);
  return across || down ? moved(view, across, down) : view;
}
