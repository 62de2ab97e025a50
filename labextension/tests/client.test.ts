import assert from 'node:assert/strict';
import { test } from 'node:test';

import { Refused, unspelled } from '../src/client';
import { json, serving } from './serving';

test('what JSON cannot say is read as the store spells it', () => {
  assert.deepEqual(
    unspelled({ a: ['~nan', '~inf', '~-inf', '~int:123456789012345678901'], '~~b': '~~text' }),
    { a: [NaN, Infinity, -Infinity, '123456789012345678901'], '~b': '~text' }
  );
  assert.equal(unspelled('~utf8:c3a9'), 'é');
  assert.equal(unspelled('~type:module.Class'), '~type:module.Class');
});

test('an address is asked for below the base address, with its words quoted', async () => {
  const { client, asked } = await serving((_, response) => json(response, { names: [] }));
  await client.names('a folder/ä&b.ipynb');
  await client.lineage('a.ipynb', 'models:/x/1 ü');
  await client.compare('a.ipynb', ['blake3:1', 'blake3:2']);
  assert.deepEqual(
    asked.map(one => one.pathname),
    ['names', 'lineage', 'compare'].map(name => `/user/alice/jupyter-mlops/api/${name}`)
  );
  assert.equal(asked[0].searchParams.get('path'), 'a folder/ä&b.ipynb');
  assert.equal(asked[1].searchParams.get('of'), 'models:/x/1 ü');
  assert.equal(asked[2].searchParams.get('runs'), 'blake3:1,blake3:2');
});

test('all runs are asked for where no notebook is named', async () => {
  const { client, asked } = await serving((_, response) => json(response, { runs: [] }));
  await client.runs('a.ipynb', '', 500, 500);
  await client.runs('a.ipynb', 'a.ipynb', 0, 50);
  assert.equal(asked[0].searchParams.has('notebook'), false);
  assert.equal(asked[0].searchParams.get('skip'), '500');
  assert.equal(asked[1].searchParams.get('notebook'), 'a.ipynb');
});

for (const [status, body, kind, message] of [
  [
    404,
    { kind: 'ProjectMissing', message: 'nothing here', cause: 'c', next: 'n' },
    'ProjectMissing',
    'nothing here'
  ],
  [404, '<html>Not Found</html>', 'ServerMissing', ''],
  [403, { message: 'Forbidden' }, 'Forbidden', 'Forbidden'],
  [502, 'Bad Gateway', 'Offline', 'Bad Gateway'],
  [200, 'no JSON', 'Offline', 'OK']
] as [number, unknown, string, string][]) {
  test(`an answer ${status} of ${JSON.stringify(body)} is a refusal: ${kind}`, async () => {
    const { client } = await serving((_, response) => {
      if (typeof body === 'string') {
        response.writeHead(status);
        response.end(body);
      } else {
        json(response, body, status);
      }
    });
    await assert.rejects(client.overview('a.ipynb'), (error: unknown) => {
      assert.ok(error instanceof Refused);
      assert.deepEqual([error.kind, error.message], [kind, message]);
      return true;
    });
  });
}

test('a server that hangs up is a refusal too', async () => {
  const { client } = await serving((_, response) => response.destroy());
  await assert.rejects(client.models('a.ipynb'), { kind: 'Offline' });
});
