/** The plugins; this and `running` are the only modules that see the application. */
import {
  ILabShell,
  ILayoutRestorer,
  JupyterFrontEnd,
  JupyterFrontEndPlugin
} from '@jupyterlab/application';
import { ICommandPalette, MainAreaWidget, Notification } from '@jupyterlab/apputils';
import { INotebookTracker, NotebookPanel } from '@jupyterlab/notebook';
import { IStateDB } from '@jupyterlab/statedb';
import { ISettingRegistry } from '@jupyterlab/settingregistry';
import { IStatusBar } from '@jupyterlab/statusbar';
import { ITranslator, nullTranslator, TranslationBundle } from '@jupyterlab/translation';
import { LabIcon } from '@jupyterlab/ui-components';

import { CellMarks } from './cells';
import { Client } from './client';
import { Book } from './model';
import { LineagePage } from './page';
import { RecordPanel } from './panel';
import { project, run } from './running';
import { StatusItem, StatusModel } from './status';
import { CommandIDs, IRecord, NAMESPACE } from './tokens';
import { clean } from './words';

const icon = new LabIcon({
  name: 'jupyter-mlops:record',
  svgstr: `<svg xmlns="http://www.w3.org/2000/svg" width="16" viewBox="0 0 24 24">
  <g class="jp-icon3" stroke="#616161" stroke-width="2" stroke-linecap="round" stroke-linejoin="round">
  <path fill="none" d="M5 12a8 8 0 1 1 2.6 5.9M1.5 9.5 5 13l3.5-3.5M13 7.5V12l3.2 2"/></g></svg>`
});

const PANEL = 'jupyter-mlops-record';

/** Keeps what is on record of each open notebook. */
const record: JupyterFrontEndPlugin<IRecord> = {
  id: 'jupyter-mlops:record',
  description: 'Knows what is on record of each open notebook.',
  autoStart: true,
  provides: IRecord,
  requires: [INotebookTracker],
  activate: (app: JupyterFrontEnd, tracker: INotebookTracker): IRecord => {
    const client = new Client(app.serviceManager.serverSettings);
    const books = new Map<object, Book>();
    const of = (widget: object | null): Book | null => {
      const known = widget ? books.get(widget) : null;
      if (
        known ||
        !(widget instanceof NotebookPanel) ||
        widget.isDisposed ||
        !tracker.has(widget)
      ) {
        return known ?? null;
      }
      const book = new Book(
        client,
        widget.context,
        widget.sessionContext,
        app.serviceManager.contents
      );
      books.set(widget, book);
      widget.disposed.connect(() => {
        books.delete(widget);
        book.dispose();
      });
      return book;
    };
    return { of };
  }
};

/** Go to a cell of a notebook. */
async function jump(
  app: JupyterFrontEnd,
  notebook: NotebookPanel,
  id: string,
  trans: TranslationBundle
): Promise<void> {
  const at = notebook.content.widgets.findIndex(cell => cell.model.id === id);
  if (at < 0) {
    Notification.info(trans.__('This cell is not in the notebook.'), { autoClose: 3000 });
    return;
  }
  app.shell.activateById(notebook.id);
  notebook.content.deselectAll();
  notebook.content.activeCellIndex = at;
  notebook.content.mode = 'command';
  await notebook.content.scrollToItem(at, 'smart');
}

/** The side panel. */
const panel: JupyterFrontEndPlugin<void> = {
  id: 'jupyter-mlops:panel',
  description: 'Shows what is on record of the current notebook, in the side bar.',
  autoStart: true,
  requires: [INotebookTracker, IRecord],
  optional: [ITranslator, ICommandPalette, ILayoutRestorer, ILabShell, IStateDB],
  activate: (
    app: JupyterFrontEnd,
    tracker: INotebookTracker,
    books: IRecord,
    translator: ITranslator | null,
    palette: ICommandPalette | null,
    restorer: ILayoutRestorer | null,
    labShell: ILabShell | null,
    state: IStateDB | null
  ): void => {
    const trans = (translator ?? nullTranslator).load(NAMESPACE);
    const widget = new RecordPanel(trans, {
      jump: (notebook, cell) => void jump(app, notebook, cell, trans),
      openFile: path => void app.commands.execute('docmanager:open', { path }),
      makeProject: cwd => void app.commands.execute(CommandIDs.newProject, { cwd }),
      enlarge:
        labShell &&
        (({ book, notebook }, of, title) => {
          const go = (tab: string, what: string) => {
            app.shell.activateById(notebook.id);
            app.shell.activateById(PANEL);
            widget.go(tab, what);
          };
          const page = new MainAreaWidget({ content: new LineagePage({ book, trans, of, go }) });
          page.title.label = trans.__('Lineage of %1', clean(title));
          page.title.icon = icon;
          page.content.node.setAttribute('aria-label', page.title.label);
          app.shell.add(page, 'main', { ref: notebook.id, mode: 'tab-after' });
          notebook.disposed.connect(() => page.dispose());
        })
    });
    widget.title.icon = icon;
    app.shell.add(widget, 'right', { rank: 400, type: 'Record' });
    restorer?.add(widget, PANEL);
    void state?.fetch(`${PANEL}:tab`).then(tab => {
      if (typeof tab === 'string') {
        widget.tab = tab;
      }
    });
    widget.tabChanged.connect((_, tab) => void state?.save(`${PANEL}:tab`, tab));
    const follow = (): void => {
      const current = tracker.currentWidget;
      const book = books.of(current);
      widget.shown = current && book ? { book, notebook: current } : null;
    };
    tracker.currentChanged.connect(follow);
    follow();

    app.commands.addCommand(CommandIDs.open, {
      label: trans.__('Show the Record of This Notebook'),
      caption: trans.__('What ran, what it read and made, and what is not known'),
      icon,
      describedBy: {
        args: {
          type: 'object',
          properties: { id: { type: 'string', description: trans.__('A cell run') } }
        }
      },
      execute: args => {
        app.shell.activateById(PANEL);
        if (typeof args.id === 'string' && args.id) {
          widget.go('timeline', args.id);
        }
      }
    });
    app.commands.addCommand(CommandIDs.refresh, {
      label: trans.__('Refresh the Record'),
      describedBy: { args: { type: 'object', properties: {} } },
      isEnabled: () => widget.shown !== null,
      execute: () => widget.shown?.book.refresh()
    });
    app.commands.addCommand(CommandIDs.showCell, {
      label: trans.__('Show the Last Run of This Cell'),
      describedBy: { args: { type: 'object', properties: {} } },
      isEnabled: () => {
        const cell = tracker.activeCell?.model.id;
        return cell !== undefined && books.of(tracker.currentWidget)?.cells.has(cell) === true;
      },
      execute: () => {
        const row = books.of(tracker.currentWidget)?.cells.get(tracker.activeCell?.model.id ?? '');
        return row ? app.commands.execute(CommandIDs.open, { id: row.id }) : undefined;
      }
    });
    const category = trans.__('Record');
    for (const command of [CommandIDs.open, CommandIDs.showCell, CommandIDs.refresh]) {
      palette?.addItem({ command, category });
    }
    labShell?.layoutModified.connect(() => app.commands.notifyCommandChanged(CommandIDs.refresh));
  }
};

/** The marks beside the cells. */
const marks: JupyterFrontEndPlugin<void> = {
  id: 'jupyter-mlops:plugin',
  description: 'Marks each code cell with what is on record of its last run.',
  autoStart: true,
  requires: [INotebookTracker, IRecord],
  optional: [ITranslator, ISettingRegistry, ICommandPalette],
  activate: (
    app: JupyterFrontEnd,
    tracker: INotebookTracker,
    books: IRecord,
    translator: ITranslator | null,
    registry: ISettingRegistry | null,
    palette: ICommandPalette | null
  ): void => {
    const trans = (translator ?? nullTranslator).load(NAMESPACE);
    const all = new Map<NotebookPanel, CellMarks>();
    let enabled = true;
    let settings: ISettingRegistry.ISettings | null = null;
    const add = (notebook: NotebookPanel): void => {
      const book = books.of(notebook);
      if (!book) {
        return;
      }
      const one = new CellMarks(notebook, book, trans, id => {
        void app.commands.execute(CommandIDs.open, { id });
      });
      one.enabled = enabled;
      all.set(notebook, one);
      notebook.disposed.connect(() => {
        all.delete(notebook);
        one.dispose();
      });
    };
    tracker.forEach(add);
    tracker.widgetAdded.connect((_, notebook) => add(notebook));
    const read = (): void => {
      enabled = settings?.get('cellMarks').composite !== false;
      all.forEach(one => {
        one.enabled = enabled;
      });
      app.commands.notifyCommandChanged(CommandIDs.toggleMarks);
    };
    app.commands.addCommand(CommandIDs.toggleMarks, {
      label: trans.__('Show Marks Beside Recorded Cells'),
      describedBy: { args: { type: 'object', properties: {} } },
      isToggled: () => enabled,
      execute: async () => {
        if (settings) {
          await settings.set('cellMarks', !enabled);
        } else {
          enabled = !enabled;
          all.forEach(one => {
            one.enabled = enabled;
          });
        }
      }
    });
    palette?.addItem({ command: CommandIDs.toggleMarks, category: trans.__('Record') });
    registry?.load('jupyter-mlops:plugin').then(
      found => {
        settings = found;
        found.changed.connect(read);
        read();
      },
      reason => console.error('jupyter-mlops: settings could not be read', reason)
    );
  }
};

/** The item of the status bar. */
const status: JupyterFrontEndPlugin<void> = {
  id: 'jupyter-mlops:status',
  description: 'Says in the status bar whether the current notebook is recorded.',
  autoStart: true,
  requires: [INotebookTracker, IRecord, IStatusBar],
  optional: [ITranslator, ILabShell],
  activate: (
    app: JupyterFrontEnd,
    tracker: INotebookTracker,
    books: IRecord,
    bar: IStatusBar,
    translator: ITranslator | null,
    labShell: ILabShell | null
  ): void => {
    const trans = (translator ?? nullTranslator).load(NAMESPACE);
    const model = new StatusModel();
    const item = new StatusItem(model, trans, () => void app.commands.execute(CommandIDs.open));
    const follow = (): void => {
      model.book = books.of(tracker.currentWidget);
    };
    tracker.currentChanged.connect(follow);
    follow();
    bar.registerStatusItem('jupyter-mlops:status', {
      item,
      align: 'left',
      rank: 20,
      isActive: () =>
        model.book !== null && (!labShell || labShell.currentWidget === tracker.currentWidget),
      activeStateChanged: model.stateChanged
    });
    labShell?.currentChanged.connect(() => model.stateChanged.emit());
  }
};

export { IRecord } from './tokens';

const plugins: JupyterFrontEndPlugin<unknown>[] = [record, panel, marks, status, run, project];

export default plugins;
