/** A server that answers as a test has it, and the page's own client before it. */
import { createServer, IncomingMessage, ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { after } from 'node:test';

import { ServerConnection } from '@jupyterlab/services';

import { Client } from '../src/client';
import { MeasuredRun, Row } from '../src/records';

export type Answer = (address: URL, response: ServerResponse) => void;

/** A client of a server that answers so; the server ends with the test file. */
export async function serving(answer: Answer): Promise<{ client: Client; asked: URL[] }> {
  const asked: URL[] = [];
  const server = createServer((request: IncomingMessage, response: ServerResponse) => {
    const address = new URL(request.url ?? '', 'http://server');
    asked.push(address);
    answer(address, response);
  });
  await new Promise<void>(done => server.listen(0, '127.0.0.1', done));
  after(() => {
    server.closeAllConnections();
    server.close();
  });
  const { port } = server.address() as AddressInfo;
  const baseUrl = `http://127.0.0.1:${port}/user/alice/`;
  const settings = ServerConnection.makeSettings({ baseUrl, fetch, Request, Headers });
  return { client: new Client(settings), asked };
}

export function json(response: ServerResponse, body: unknown, status = 200): void {
  response.writeHead(status, { 'Content-Type': 'application/json' });
  response.end(JSON.stringify(body));
}

export function row(position: number, more: Partial<Row> = {}): Row {
  return {
    id: `blake3:${position}`,
    time: '2026-01-01T00:00:00Z',
    run: 'blake3:run',
    notebook: 'a.ipynb',
    cell: 'c',
    count: position + 1,
    status: 'done',
    title: `step(${position})`,
    lines: 1,
    label: '',
    seconds: 0,
    error: '',
    made: [],
    made_count: 0,
    metrics: {},
    marks: [],
    parent: null,
    trigger: '',
    position,
    ...more
  };
}

export function run(number: number, more: Partial<MeasuredRun> = {}): MeasuredRun {
  return {
    id: `blake3:${number.toString(16).padStart(8, '0')}`,
    time: `2026-01-01T00:00:${String(number % 60).padStart(2, '0')}.${String(number).padStart(6, '0')}Z`,
    trigger: 'papermill',
    notebook: 'train.ipynb',
    status: 'done',
    seconds: number,
    user: 'alice',
    on_behalf_of: '',
    parameters: {},
    tickets: [],
    error: '',
    outputs: [],
    parent: null,
    result: '',
    metrics: {},
    logged: {},
    unread: 0,
    ...more
  };
}

/** Wait until something is so. */
export async function until(so: () => boolean): Promise<void> {
  while (!so()) {
    await new Promise(done => setTimeout(done, 5));
  }
}
