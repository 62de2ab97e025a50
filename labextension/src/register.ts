/** The line that has a kernel register one of its variables: only the kernel has the object. */

export interface IRegistration {
  variable: string;
  name: string;
  /** Variables that it was trained on, as `X,y`. */
  data: string;
  description: string;
  /** As `stage=trial, team=ops`. */
  tags: string;
  reason: string;
  tickets: string[];
}

/** What a Python variable can be called, for a field of a form. */
export const VARIABLE = '[\\p{L}_][\\p{L}\\p{N}_]*';

/** What a model can be called. */
export const MODEL = '[A-Za-z0-9]([A-Za-z0-9._\\-]{0,98}[A-Za-z0-9_\\-])?';

/** The magic, with every text as one word of it that stays what it is. */
export function registration(of: IRegistration): string {
  const words = ['register', of.variable, of.name];
  if (of.data.trim()) {
    words.push('--data', of.data.replace(/\s+/g, ''));
  }
  if (of.description.trim()) {
    words.push('--description', of.description.trim());
  }
  for (const tag of of.tags.split(',')) {
    const [key, ...rest] = tag.split('=');
    if (key.trim()) {
      words.push('--tag', key.trim(), rest.join('=').trim());
    }
  }
  if (of.reason.trim()) {
    words.push('--reason', of.reason.trim());
  }
  for (const ticket of of.tickets) {
    words.push('--ticket', ticket);
  }
  return `%mlops ${words.map(word).join(' ')}`;
}

/**
 * A text as one word of a magic's line.
 *
 * IPython fills in `{…}` and `$…` before the line is split into words as a shell splits them, and looks at what a line
 * ends with. So every character that could mean anything to it is written as a piece of Python that is that character.
 */
function word(text: string): string {
  if (/^[A-Za-z0-9_.,/@=+-]+$/.test(text)) {
    return text;
  }
  const quoted = `'${text.replace(/'/g, `'"'"'`)}'`;
  return [...quoted]
    .map(char => (/[A-Za-z0-9 _.,:/@=+'"-]/.test(char) ? char : written(char)))
    .join('');
}

function written(char: string): string {
  const code = char.codePointAt(0) ?? 0;
  return `{"\\U${code.toString(16).padStart(8, '0')}"}`;
}
