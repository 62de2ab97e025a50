/** Asks a kernel what a server would be asked: for a record that no server sees. */
import { ServerConnection } from '@jupyterlab/services';

import { Client, refuse, Refused, unspelled } from './client';
import { KernelLink } from './kernel';

export class KernelClient extends Client {
  constructor(
    settings: ServerConnection.ISettings,
    private link: KernelLink
  ) {
    super(settings);
  }

  protected override async ask<T>(
    route: string,
    words: Record<string, string>,
    sent?: object | null
  ): Promise<T> {
    if (sent !== undefined) {
      throw new Refused('KernelOnly', '');
    }
    const [status, body] = await this.link.ask(decodeURIComponent(route), words);
    if (status === 200) {
      return unspelled(body) as T;
    }
    refuse(body);
    throw new Refused('Failed', `${status}`);
  }
}
