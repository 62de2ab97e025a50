/** The plugins that have something done: a notebook run from a form, a project made. They see the application. */
import {
  ILabShell,
  ILayoutRestorer,
  JupyterFrontEnd,
  JupyterFrontEndPlugin
} from '@jupyterlab/application';
import { ICommandPalette, MainAreaWidget, Notification, WidgetTracker } from '@jupyterlab/apputils';
import { ILauncher } from '@jupyterlab/launcher';
import { INotebookTracker, NotebookPanel } from '@jupyterlab/notebook';
import { ITranslator, nullTranslator } from '@jupyterlab/translation';
import { LabIcon } from '@jupyterlab/ui-components';
import type { JSONObject } from '@lumino/coreutils';
import { Signal } from '@lumino/signaling';

import { Client, Refused } from './client';
import { start } from './jobs';
import { Job } from './records';
import { RunForm } from './run';
import { IDesk } from './runjob';
import { placed, RunModel } from './runmodel';
import { CommandIDs, NAMESPACE } from './tokens';
import { clean, reason } from './words';

const runIcon = new LabIcon({
  name: 'jupyter-mlops:run',
  svgstr: `<svg xmlns="http://www.w3.org/2000/svg" width="16" viewBox="0 0 24 24">
  <path class="jp-icon3" fill="#616161" d="M3 5h9v2H3zm0 6h6v2H3zm0 6h6v2H3zm9-6.5v10l8-5z"/></svg>`
});

const projectIcon = new LabIcon({
  name: 'jupyter-mlops:project',
  svgstr: `<svg xmlns="http://www.w3.org/2000/svg" width="16" viewBox="0 0 24 24">
  <path class="jp-icon3" fill="#616161" d="M10 4H4a2 2 0 0 0-2 2v12a2 2 0 0 0 2 2h16a2 2 0 0 0 2-2V8a2 2 0 0
  0-2-2h-8l-2-2zm-3 7h2v2H7zm4 0h7v2h-7zm-4 4h2v2H7zm4 0h7v2h-7z"/></svg>`
});

/** What the form does with open notebooks. */
class Desk implements IDesk {
  constructor(
    private app: JupyterFrontEnd,
    private tracker: INotebookTracker
  ) {
    const add = (notebook: NotebookPanel): void => {
      notebook.context.model.stateChanged.connect(() => this.dirtyChanged.emit());
    };
    tracker.forEach(add);
    tracker.widgetAdded.connect((_, notebook) => add(notebook));
  }

  readonly dirtyChanged = new Signal<this, void>(this);

  dirty(path: string): boolean {
    return this.find(path)?.context.model.dirty === true;
  }

  async save(path: string): Promise<void> {
    await this.find(path)?.context.save();
  }

  open(path: string): void {
    void this.shown(path, {});
  }

  /** Open what came of a notebook as a tab beside it, or beside the form; anew, where it is open already. */
  async result(path: string, notebook: string, form: string): Promise<void> {
    const beside = this.find(notebook);
    await this.shown(
      path,
      beside ? { mode: 'tab-after', ref: beside.id } : { mode: 'split-left', ref: form }
    );
  }

  show(id: string): void {
    void this.app.commands.execute(CommandIDs.open, { id });
  }

  private async shown(path: string, options: JSONObject): Promise<void> {
    const open = this.find(path);
    if (open && !open.context.model.dirty) {
      await open.context.revert();
    }
    await this.app.commands.execute('docmanager:open', { path, options });
  }

  private find(path: string): NotebookPanel | undefined {
    const { contents } = this.app.serviceManager;
    return this.tracker.find(one => contents.localPath(one.context.path) === path);
  }
}

/** The form that runs a notebook. */
export const run: JupyterFrontEndPlugin<void> = {
  id: 'jupyter-mlops:run',
  description: 'Runs a notebook from a form made of its parameters.',
  autoStart: true,
  requires: [INotebookTracker],
  optional: [ITranslator, ICommandPalette, ILayoutRestorer, ILabShell],
  activate: (
    app: JupyterFrontEnd,
    tracker: INotebookTracker,
    translator: ITranslator | null,
    palette: ICommandPalette | null,
    restorer: ILayoutRestorer | null,
    labShell: ILabShell | null
  ): void => {
    const trans = (translator ?? nullTranslator).load(NAMESPACE);
    const client = new Client(app.serviceManager.serverSettings);
    const forms = new WidgetTracker<MainAreaWidget<RunForm>>({ namespace: 'jupyter-mlops-run' });
    const desk = new Desk(app, tracker);
    const here = (): string => {
      const current = tracker.currentWidget;
      return current ? app.serviceManager.contents.localPath(current.context.path) : '';
    };

    /** A run is over: its result is shown where it was asked for, and told of elsewhere. */
    const told = (form: MainAreaWidget<RunForm>, job: Job): void => {
      const answer = job.answer as { output?: unknown } | null;
      const output = job.verb === 'run' ? placed(job, answer?.output) : null;
      const name = clean(form.content.model.path.split('/').pop() ?? '');
      if (form.isVisible) {
        if (output && job.state === 'done' && labShell) {
          void desk.result(output, form.content.model.path, form.id);
        }
        return;
      }
      const actions = [
        { label: trans.__('Show'), callback: () => app.shell.activateById(form.id) },
        ...(output
          ? [{ label: trans.__('Open the result'), callback: () => desk.open(output) }]
          : [])
      ];
      if (job.state === 'done') {
        Notification.success(trans.__('%1 ran to its end.', name), { actions });
      } else {
        Notification.error(trans.__('The run of %1 came to no result.', name), { actions });
      }
    };

    app.commands.addCommand(CommandIDs.run, {
      label: trans.__('Run This Notebook with Parameters…'),
      caption: trans.__('Run this notebook headless, with parameters, once or over many values'),
      icon: runIcon,
      describedBy: {
        args: {
          type: 'object',
          properties: { path: { type: 'string', description: trans.__('The notebook') } }
        }
      },
      isEnabled: () => tracker.currentWidget !== null,
      execute: async args => {
        const path = typeof args.path === 'string' && args.path ? args.path : here();
        if (!path) {
          return;
        }
        const open = forms.find(one => one.content.model.path === path);
        if (open) {
          app.shell.activateById(open.id);
          return;
        }
        const form = new MainAreaWidget({
          content: new RunForm(new RunModel(client, path), desk, trans)
        });
        form.id = `jupyter-mlops-run-${path}`;
        form.title.label = trans.__('Run %1', clean(path.split('/').pop() ?? ''));
        form.title.caption = clean(path);
        form.title.icon = runIcon;
        form.title.closable = true;
        form.content.model.ended.connect((_, job) => told(form, job));
        const beside = tracker.find(
          one => app.serviceManager.contents.localPath(one.context.path) === path
        );
        if (labShell) {
          app.shell.add(form, 'main', beside ? { mode: 'split-right', ref: beside.id } : {});
        } else {
          app.shell.add(form, 'right', { rank: 401, type: 'Run' }); // Notebook shows its one notebook
        }
        await forms.add(form);
        app.shell.activateById(form.id);
      }
    });
    void restorer?.restore(forms, {
      command: CommandIDs.run,
      args: form => ({ path: form.content.model.path }),
      name: form => form.content.model.path
    });
    tracker.currentChanged.connect(() => app.commands.notifyCommandChanged(CommandIDs.run));
    palette?.addItem({ command: CommandIDs.run, category: trans.__('Record') });
  }
};

/** The card that makes a project. */
export const project: JupyterFrontEndPlugin<void> = {
  id: 'jupyter-mlops:project',
  description: 'Makes a project in a folder, with a first notebook.',
  autoStart: true,
  requires: [INotebookTracker],
  optional: [ITranslator, ICommandPalette, ILauncher],
  activate: (
    app: JupyterFrontEnd,
    tracker: INotebookTracker,
    translator: ITranslator | null,
    palette: ICommandPalette | null,
    launcher: ILauncher | null
  ): void => {
    const trans = (translator ?? nullTranslator).load(NAMESPACE);
    const client = new Client(app.serviceManager.serverSettings);
    app.commands.addCommand(CommandIDs.newProject, {
      label: trans.__('New MLOps Project'),
      caption: trans.__('Record what the notebooks of this folder do; with a first notebook'),
      icon: args => (args.isPalette ? undefined : projectIcon),
      describedBy: {
        args: {
          type: 'object',
          properties: {
            cwd: { type: 'string', description: trans.__('The folder') },
            isPalette: {
              type: 'boolean',
              description: trans.__('Whether it is told of in the palette')
            }
          }
        }
      },
      execute: async args => {
        const here = tracker.currentWidget?.context.path ?? '';
        const folder = app.serviceManager.contents.localPath(
          typeof args.cwd === 'string' ? args.cwd : here.split('/').slice(0, -1).join('/')
        );
        try {
          const followed = await start(client, folder, { verb: 'init', sent: { notebook: true } });
          const job = await followed.ended;
          followed.dispose();
          const answer = job.answer as { notebook?: unknown; fresh?: unknown } | null;
          const notebook = placed(job, answer?.notebook);
          if (job.state !== 'done' || !notebook) {
            Notification.error(clean(job.said.join(' ')) || trans.__('No project could be made.'));
            return;
          }
          await app.commands.execute('docmanager:open', { path: notebook });
          Notification.success(
            answer?.fresh
              ? trans.__('What the notebooks of this folder do is recorded in it from now on.')
              : trans.__('There is a project here already.'),
            { autoClose: 5000 }
          );
        } catch (error) {
          const why = error instanceof Refused ? reason(error, trans) : `${error}`;
          Notification.error(why);
        }
      }
    });
    palette?.addItem({
      command: CommandIDs.newProject,
      category: trans.__('Record'),
      args: { isPalette: true }
    });
    launcher?.add({ command: CommandIDs.newProject, category: 'Other', rank: 5 });
  }
};
