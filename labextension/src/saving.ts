/** Has the picture of a lineage saved by the browser, in the colours of the theme. */
import { IColours } from './picture';

/** Pixels of a side that browsers draw. */
const CANVAS = 8192;

/** The theme's colours as they are now. */
export function coloursOf(style: CSSStyleDeclaration): IColours {
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

/** The file of a picture. */
export async function svgFile(svg: string): Promise<Blob> {
  return new Blob([svg], { type: 'image/svg+xml' });
}

/** The same in pixels. */
export async function pngFile(svg: string, [width, height]: [number, number]): Promise<Blob> {
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

/** Have a file saved. */
export function download(blob: Blob, name: string): void {
  const link = document.createElement('a');
  link.href = URL.createObjectURL(blob);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
}
