/** Has a slice or a checkout of a cell run written, where a person wants it. */
import * as React from 'react';

import { Act } from './acts';
import { Link } from './controls';
import { FactList, Gaps } from './parts';
import { CellDetail } from './records';
import type { ITabProps } from './tabs';
import { clean, short } from './words';

interface IWrittenProps extends ITabProps {
  act: 'slice' | 'checkout';
  cell: CellDetail;
  close: () => void;
}

export function Written(props: IWrittenProps): JSX.Element {
  const { book, trans, act, cell, close, openFile } = props;
  const id = cell.row.id;
  const stem = (book.path.split('/').pop() ?? '').replace(/\.ipynb$/, '');
  if (act === 'slice') {
    const name = book.beside(`${stem}-slice-${short(id).slice(0, 6)}.ipynb`);
    return (
      <Act
        trans={trans}
        title={trans.__('Slice from here')}
        verb={trans.__('Write the notebook')}
        fields={[
          {
            name: 'output',
            label: trans.__('Notebook'),
            value: name,
            required: true,
            hint: trans.__('In the folder that this server shows; no file is replaced.')
          },
          {
            name: 'unseeded',
            label: trans.__('Also if it need not give the same again'),
            kind: 'tick'
          }
        ]}
        act={async given => {
          const done = await book.client.slice(book.path, {
            what: id,
            output: given.output.trim(),
            allow_unseeded: given.unseeded === 'yes'
          });
          openFile(book.onDrive(done.notebook));
          return (
            <>
              <div>
                {trans._n(
                  '%1 cell makes what this one made:',
                  '%1 cells make what this one made:',
                  done.cells
                )}{' '}
                <Opened path={done.notebook} {...props} />
              </div>
              <Gaps gaps={done.unseeded} title={trans.__('Need not give the same again')} open />
            </>
          );
        }}
        close={close}
      />
    );
  }
  return (
    <Act
      trans={trans}
      title={trans.__('Check out code and files')}
      verb={trans.__('Write them')}
      fields={[
        {
          name: 'folder',
          label: trans.__('Folder'),
          value: book.beside(`${stem}-${short(id).slice(0, 6)}`),
          required: true,
          hint: trans.__('New or empty, in the folder that this server shows: nothing is replaced.')
        }
      ]}
      act={async given => {
        const done = await book.client.checkOut(book.path, {
          what: id,
          folder: given.folder.trim()
        });
        return (
          <>
            <div>
              {trans._n('%1 file was written:', '%1 files were written:', done.placed.length)}{' '}
              <Opened path={done.notebook} {...props} />
            </div>
            <FactList
              title={trans.__('Not there')}
              rows={done.missing.map(one => [clean(one.name), clean(one.why ?? '')])}
              open
            />
            <Gaps gaps={done.gaps} title={trans.__('Not brought back')} open />
          </>
        );
      }}
      close={close}
    />
  );
}

/** A file that was written, to be opened. */
function Opened(props: ITabProps & { path: string }): JSX.Element {
  return (
    <Link onClick={() => props.openFile(props.book.onDrive(props.path))}>{clean(props.path)}</Link>
  );
}
