/** The place of what is measured of models in use. Nothing is measured by anything yet, and it says so. */
import * as React from 'react';

import type { ITab } from './tabs';

export const monitoring: ITab = {
  name: 'monitoring',
  label: trans => trans.__('Monitoring'),
  body: ({ trans, go }) => (
    <div className="jp-mlops-empty" role="status">
      <h3>{trans.__('Nothing is monitored yet')}</h3>
      <p>
        {trans.__(
          'What a model in use is given and answers will be held here against the data it was registered with.'
        )}
      </p>
      <p>{trans.__('Until then, any table can be held against that data in a cell:')}</p>
      <code>%mlops check data TABLE --against MODEL/VERSION</code>
      <button className="jp-mod-styled" onClick={() => go('models', '')}>
        {trans.__('Show the models')}
      </button>
    </div>
  )
};
