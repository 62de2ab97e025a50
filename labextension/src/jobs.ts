/** Follows what a page has had done, to its end. No DOM, no application. */
import { IDisposable } from '@lumino/disposable';
import { Poll } from '@lumino/polling';
import { ISignal, Signal } from '@lumino/signaling';

import { Client, Order, Refused } from './client';
import { Job } from './records';

const LOOK = 400;

/** Whether a job is over. */
export function over(job: Job): boolean {
  return job.state !== 'running';
}

/** Have something done, and follow it. */
export async function start(client: Client, path: string, order: Order): Promise<Followed> {
  return new Followed(client, await client.start(path, order));
}

/** A job that is followed until it is over. */
export class Followed implements IDisposable {
  constructor(
    private client: Client,
    job: Job
  ) {
    this._job = job;
    this.ended = new Promise(resolve => (this.resolve = resolve));
    this.poll = new Poll({
      name: 'jupyter-mlops:job',
      factory: () => this.look(),
      frequency: { interval: LOOK, backoff: true, max: 10000 },
      standby: 'when-hidden'
    });
  }

  /** The job when it is over; never, where this is disposed of before. */
  readonly ended: Promise<Job>;
  /** Why it could not be looked after the last time. */
  problem: Refused | null = null;

  get job(): Job {
    return this._job;
  }

  get changed(): ISignal<this, void> {
    return this._changed;
  }

  get isDisposed(): boolean {
    return this._isDisposed;
  }

  dispose(): void {
    if (!this._isDisposed) {
      this._isDisposed = true;
      this.poll.dispose();
      Signal.clearData(this);
    }
  }

  /** Ask it to end. */
  async interrupt(): Promise<void> {
    try {
      this.take(await this.client.interrupt(this._job.id));
    } catch (error) {
      this.fail(error);
    }
  }

  private async look(): Promise<void> {
    try {
      this.take(await this.client.job(this._job.id));
    } catch (error) {
      this.fail(error);
      throw error; // the poll then waits longer
    }
  }

  private take(job: Job): void {
    if (this._isDisposed) {
      return;
    }
    this._job = job;
    this.problem = null;
    if (over(job)) {
      void this.poll.stop();
      this.resolve(job);
    }
    this._changed.emit();
  }

  private fail(error: unknown): void {
    if (this._isDisposed) {
      return;
    }
    this.problem = error instanceof Refused ? error : new Refused('Failed', `${error}`);
    if (this.problem.kind === 'JobMissing') {
      void this.poll.stop(); // the server was started anew
      this._job = { ...this._job, state: 'failed' };
      this.resolve(this._job);
    }
    this._changed.emit();
  }

  private _job: Job;
  private poll: Poll;
  private resolve: (job: Job) => void = () => undefined;
  private _isDisposed = false;
  private _changed = new Signal<this, void>(this);
}
