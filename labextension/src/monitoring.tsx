/** The place of what is measured of models in use. Nothing is measured by anything yet, and it says so. */
import * as React from 'react';

import { Verb } from './controls';
import { Empty } from './parts';
import type { ITab } from './tabs';

export const monitoring: ITab = {
  name: 'monitoring',
  label: trans => trans.__('Monitoring'),
  body: ({ trans, go }) => (
    <Empty
      heading={trans.__('Nothing is monitored yet')}
      said={[
        trans.__(
          'What a model in use is given and answers will be held here against the data it was registered with.'
        ),
        trans.__('Until then, any table can be held against that data in a cell:')
      ]}
      code="%mlops check data TABLE --against MODEL/VERSION"
    >
      <Verb onClick={() => go('models', '')}>{trans.__('Show the models')}</Verb>
    </Empty>
  )
};
