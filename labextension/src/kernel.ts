/**
 * Hears from a kernel what happens in it, over the comm that all pages share.
 *
 * The comm's id is known beforehand: a page that comes back hears what goes on at once, also while a cell runs. Whether
 * a kernel records is asked with an inspection request, as a tooltip does: that runs no code, and a kernel that has
 * never heard of us answers it without a word in anybody's log.
 */
import type { ISessionContext } from '@jupyterlab/apputils';
import type { Kernel, KernelMessage } from '@jupyterlab/services';
import { UUID } from '@lumino/coreutils';
import { IDisposable } from '@lumino/disposable';
import { ISignal, Signal } from '@lumino/signaling';

import { Refused } from './client';
import { Row, TARGET } from './records';

/** What a kernel says of itself. */
export interface IHello {
  version: string;
  protocol: number;
  recording: boolean;
  /** Why recording turned itself off, where it did. */
  off: string;
  run: string | null;
  store: string;
  /** Whether it answers what is asked of its record. */
  answers: boolean;
}

/** Milliseconds to wait for an answer: of a kernel that runs a cell, and of one that does not. */
const BUSY = 4000;
/** Milliseconds after which a kernel that has not said hello is greeted again. */
const LOST = 5000;
const IDLE = 60000;
/** Milliseconds after which a kernel that has not said whether it records is said to be silent. */
const SILENT = 2000;

/** A question under way: a kernel that is busy may answer it much later, and is not asked a second time. */
interface IQuestion {
  id: string;
  take: ((status: number, body: unknown) => void)[];
}

const WORTH_ASKING = /\bjupyter_mlops\b/;

export class KernelLink implements IDisposable {
  constructor(private context: ISessionContext) {
    context.kernelChanged.connect(this.onKernel, this);
    context.statusChanged.connect(this.onStatus, this);
    context.iopubMessage.connect(this.onMessage, this);
    void this.attach();
  }

  /** What the kernel said when it was last greeted; null where it does not record, or has not answered yet. */
  hello: IHello | null = null;

  /**
   * Whether it was asked who it is, and has not answered for a while: it runs a cell, or starts. All questions but those
   * of a kernel that has said hello wait for that.
   */
  get silent(): boolean {
    return this._silent;
  }

  /** It said hello, is silent, or is gone. */
  get changed(): ISignal<this, void> {
    return this._changed;
  }

  /** A cell run began or ended. */
  get told(): ISignal<this, Row> {
    return this._told;
  }

  get isDisposed(): boolean {
    return this._isDisposed;
  }

  dispose(): void {
    if (!this._isDisposed) {
      this._isDisposed = true;
      this.turn++;
      clearTimeout(this.awaited);
      Signal.clearData(this);
      this.comm?.dispose(); // on this page alone: others listen on it too
      this.comm = null;
    }
  }

  /** Tell the kernel which notebook this is, as records spell its path. */
  tell(notebook: string): void {
    if (this.comm && this.hello) {
      this.comm.send({ notebook });
    }
  }

  /**
   * Run a line for the person at the page, and give what it answered. It is on record as any cell run, and in nobody's
   * history; a kernel that is busy comes to it in its turn.
   */
  async run(code: string): Promise<string> {
    const kernel = this.context.session?.kernel;
    if (!kernel) {
      throw new Refused('Kernel', 'there is no kernel');
    }
    const future = kernel.requestExecute({ code, store_history: false, allow_stdin: false });
    const said: string[] = [];
    future.onIOPub = message => {
      const content = message.content as { text?: unknown; data?: Record<string, unknown> };
      const text = content.text ?? content.data?.['text/plain'];
      if (typeof text === 'string') {
        said.push(text);
      }
    };
    const reply = await future.done.catch(() => null);
    if (reply?.content.status !== 'ok') {
      const error = reply?.content as Partial<KernelMessage.IReplyErrorContent> | undefined;
      throw new Refused('Kernel', error?.evalue || 'the kernel did not answer');
    }
    return said.join('\n');
  }

  /**
   * Ask the kernel of its record, in the words of the server's addresses: a status as HTTP has them, and JSON.
   *
   * Most kernels answer beside a cell that runs. One that does not is refused for now, and its answer, when it comes,
   * is the answer to whoever asks the same by then.
   */
  ask(what: string, words: Record<string, string>): Promise<[number, unknown]> {
    const key = JSON.stringify([what, words]);
    const comm = this.comm;
    if (!comm || !this.hello?.answers) {
      return Promise.reject(new Refused('KernelGone', ''));
    }
    let question = this.questions.get(key);
    if (!question) {
      question = { id: UUID.uuid4(), take: [] };
      this.questions.set(key, question);
      comm.send({ ask: { id: question.id, what, words } });
    }
    const asked = question;
    return new Promise((resolve, reject) => {
      const busy = this.context.session?.kernel?.status === 'busy';
      const timer = setTimeout(
        () => {
          asked.take = asked.take.filter(one => one !== take);
          if (!busy) {
            this.questions.delete(key); // lost on its way: the next one may arrive
          }
          reject(new Refused('KernelBusy', ''));
        },
        busy ? BUSY : IDLE
      );
      const take = (status: number, body: unknown): void => {
        clearTimeout(timer);
        resolve([status, body]);
      };
      asked.take.push(take);
    });
  }

  private onKernel(): void {
    this.heard();
    void this.attach();
  }

  /** Greet the kernel; again, where its answer is lost on its way. */
  private async attach(tries = 4): Promise<void> {
    const kernel = this.context.session?.kernel ?? null;
    this.leave();
    if (!kernel || this._isDisposed) {
      return;
    }
    const turn = ++this.turn;
    let silent = true;
    this.greeting = true;
    const again = setTimeout(() => {
      this.greeting = this.greeting && turn !== this.turn;
      if (silent && tries > 0 && turn === this.turn && !this.hello) {
        void this.attach(tries - 1);
      }
    }, LOST);
    try {
      // Not what the kernel says of itself: an answer that was lost while it started would be awaited for ever.
      const spec = await kernel.spec;
      if (turn !== this.turn || spec?.language.toLowerCase() !== 'python') {
        clearTimeout(again);
        this.greeting = false;
        return;
      }
      this.listen(kernel);
      this.await();
      silent = await this.greet(kernel, turn);
      this.greeting = this.greeting && silent;
    } catch {
      // The kernel died or was changed meanwhile: another attempt follows with the next one.
    }
  }

  /** Hear what is said on the comm, whoever opened it. */
  private listen(kernel: Kernel.IKernelConnection): void {
    if (this.comm && !this.comm.isDisposed) {
      return;
    }
    if (!kernel.handleComms || kernel.hasComm(TARGET)) {
      return; // another document of this page has the same kernel
    }
    const comm = kernel.createComm(TARGET, TARGET);
    comm.onMsg = message => this.hear(message);
    comm.onClose = () => this.leave();
    this.comm = comm;
  }

  /**
   * Ask whether it records, and open the comm if so. A later turn takes an earlier one's place, wherever that is.
   *
   * Whether it is to say hello now.
   */
  private async greet(kernel: Kernel.IKernelConnection, turn: number): Promise<boolean> {
    const found = await kernel.requestInspect({ code: '%mlops', cursor_pos: 4, detail_level: 0 });
    if (turn !== this.turn || found.content.status !== 'ok' || !found.content.found) {
      if (turn === this.turn) {
        this.heard();
      }
      return false;
    }
    this.listen(kernel);
    const open = await kernel.requestCommInfo({ target_name: TARGET });
    if (turn !== this.turn || !this.comm) {
      return true;
    }
    if (open.content.status === 'ok' && TARGET in open.content.comms) {
      this.comm.send({});
    } else {
      this.comm.open({});
    }
    return true;
  }

  private hear(message: KernelMessage.ICommMsgMsg): void {
    const data = message.content.data as Partial<IHello> & {
      kind?: unknown;
      row?: unknown;
      id?: unknown;
      status?: unknown;
      body?: unknown;
    };
    if (data.kind === 'hello' && typeof data.version === 'string') {
      this.hello = {
        version: data.version,
        protocol: Number(data.protocol),
        recording: data.recording === true,
        off: typeof data.off === 'string' ? data.off : '',
        run: typeof data.run === 'string' ? data.run : null,
        store: typeof data.store === 'string' ? data.store : '',
        answers: data.answers === true
      };
      this.greeting = this.pending = false;
      this.heard();
      this._changed.emit();
    } else if (data.kind === 'answer') {
      this.answered(data);
    } else if ((data.kind === 'began' || data.kind === 'ended') && isRow(data.row)) {
      if (this.hello?.run === null || this.hello === null) {
        this.comm?.send({}); // its run has begun since, or this page has not been greeted yet
      }
      this._told.emit(data.row);
    }
  }

  private answered(data: { id?: unknown; status?: unknown; body?: unknown }): void {
    for (const [key, question] of this.questions) {
      if (question.id === data.id) {
        this.questions.delete(key);
        question.take.forEach(take => take(Number(data.status), data.body));
      }
    }
  }

  private leave(): void {
    const comm = this.comm;
    this.comm = null;
    for (const question of this.questions.values()) {
      question.take.forEach(take => take(503, { kind: 'KernelGone', message: ' ' }));
    }
    this.questions.clear();
    comm?.dispose();
    if (this.hello) {
      this.hello = null;
      this._changed.emit();
    }
  }

  private onStatus(_: ISessionContext, status: Kernel.Status): void {
    if (status === 'restarting' || status === 'autorestarting' || status === 'dead') {
      this.turn++;
      this.heard();
      this.leave();
      this.pending = true;
    } else if (status === 'idle' && this.pending && !this.greeting) {
      this.pending = false;
      void this.attach();
    }
  }

  /** A cell that speaks of us may have loaded us: ask again as soon as it is over. */
  private onMessage(_: ISessionContext, message: KernelMessage.IMessage): void {
    if (message.header.msg_type === 'execute_input' && !this.hello) {
      const code = (message.content as KernelMessage.IExecuteInputMsg['content']).code;
      this.pending = this.pending || WORTH_ASKING.test(code);
    }
  }

  /** From now on it is waited for whether it records. */
  private await(): void {
    this.awaited ??= setTimeout(() => {
      this._silent = true;
      this._changed.emit();
    }, SILENT);
  }

  /** It is not waited for any more. */
  private heard(): void {
    clearTimeout(this.awaited);
    this.awaited = undefined;
    if (this._silent) {
      this._silent = false;
      this._changed.emit();
    }
  }

  private awaited: ReturnType<typeof setTimeout> | undefined;
  private _silent = false;
  private questions = new Map<string, IQuestion>();
  private comm: Kernel.IComm | null = null;
  private turn = 0;
  private pending = false;
  /** A greeting is under way: a second one beside it would take its comm away. */
  private greeting = false;
  private _isDisposed = false;
  private _changed = new Signal<this, void>(this);
  private _told = new Signal<this, Row>(this);
}

/** Whether what a kernel sent has the form of a row: another version's may not. */
export function isRow(value: unknown): value is Row {
  const row = value as Partial<Row> | null;
  return (
    row !== null &&
    typeof row === 'object' &&
    typeof row.id === 'string' &&
    typeof row.time === 'string' &&
    typeof row.title === 'string' &&
    typeof row.status === 'string' &&
    typeof row.cell === 'string' &&
    Array.isArray(row.made) &&
    Array.isArray(row.marks)
  );
}
