/** A lineage as a tree of lines. */
import * as React from 'react';

import { outline } from './layout';
import { AROUND, ILineageProps, kindOf } from './nodes';
import { clean, joined } from './words';

interface ITreeProps extends ILineageProps {
  /** What a key does that is the same in every form of a lineage; gives whether it does anything. */
  act: (key: string) => boolean;
}

export function Tree(props: ITreeProps): JSX.Element {
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
  const own = React.useId();
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
      aria-activedescendant={at >= 0 ? `${own}-${at}` : undefined}
      onKeyDown={onKeyDown}
    >
      {lines.map((line, number) => {
        const node = byId.get(line.node);
        return (
          node && (
            <li
              key={number}
              id={`${own}-${number}`}
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
                {joined(
                  [
                    kindOf(node.kind, trans),
                    line.again ? trans.__('as above') : clean(node.detail)
                  ],
                  ' · '
                )}
              </span>
            </li>
          )
        );
      })}
    </ul>
  );
}
