/** A lineage as a picture in a file of its own: the text of an SVG, with the colours it is shown in. No DOM. */
import { curve, HIGH, ILayout, WIDE } from './layout';

export interface IBox {
  id: string;
  kind: string;
  /** Both cut to the width of a node. */
  label: string;
  detail: string;
}

export interface IColours {
  paper: string;
  border: string;
  text: string;
  font: string;
  /** Of the stripe of each kind. */
  kinds: Record<string, string>;
}

const EDGE = 16;

/** A text as XML holds it. */
export function escaped(text: string): string {
  return text
    .replace(/[\ud800-\udbff](?![\udc00-\udfff])|(?<![\ud800-\udbff])[\udc00-\udfff]/g, '\ufffd')
    .replace(/[\u0000-\u0008\u000b\u000c\u000e-\u001f\ufffe\uffff]/g, '\ufffd')
    .replace(/[&<>"']/g, char => `&#${char.charCodeAt(0)};`);
}

/** The width and height of the picture of a layout. */
export function sizeOf(laid: ILayout): [number, number] {
  return [Math.ceil(laid.width) + 2 * EDGE, Math.ceil(laid.height) + 2 * EDGE];
}

/** Draw a layout as a stand-alone SVG. */
export function svgOf(
  laid: ILayout,
  boxes: readonly IBox[],
  hidden: ReadonlySet<string>,
  title: string,
  colours: IColours
): string {
  const [width, height] = sizeOf(laid);
  const colour = (value: string) => escaped(value.trim() || '#888');
  const parts = [
    `<svg xmlns="http://www.w3.org/2000/svg" width="${width}" height="${height}" viewBox="${-EDGE} ${-EDGE} ${width} ${height}"` +
      ` font-family="${escaped(colours.font)}" role="img">`,
    `<title>${escaped(title)}</title>`,
    `<rect x="${-EDGE}" y="${-EDGE}" width="${width}" height="${height}" fill="${colour(colours.paper)}"/>`,
    `<g fill="none" stroke="${colour(colours.border)}">`
  ];
  for (const { edge, points } of laid.ways) {
    if (!hidden.has(edge.source)) {
      parts.push(`<path d="${curve(points)}"/>`);
    }
  }
  parts.push('</g>');
  for (const box of boxes) {
    const place = laid.places.get(box.id);
    if (place) {
      parts.push(
        `<g transform="translate(${place.x.toFixed(1)} ${place.y.toFixed(1)})" fill="${colour(colours.text)}">`,
        `<rect width="${WIDE}" height="${HIGH}" rx="4" fill="${colour(colours.paper)}" stroke="${colour(colours.border)}"/>`,
        `<rect width="4" height="${HIGH}" fill="${colour(colours.kinds[box.kind] ?? colours.border)}"/>`,
        `<text x="12" y="17" font-size="13">${escaped(box.label)}</text>`,
        `<text x="12" y="32" font-size="11">${escaped(box.detail)}</text></g>`
      );
    }
  }
  parts.push('</svg>');
  return parts.join('\n');
}
