// Made by make_records.py from the server's own structs: not to be edited.

/** Version of what page, server and kernel say to one another. */
export const PROTOCOL = 1;

/** The kernel's comm. */
export const TARGET = 'jupyter_mlops.live';

/** Where the server answers, below its base address. */
export const API = 'jupyter-mlops/api';

/** An alias and its history, newest first. */
export interface AliasRow {
  alias: string;
  version: number | null;
  steps: Step[];
}

/** A gate that was asked of a version, and its answer. */
export interface Answered {
  check: string;
  passed: boolean;
  summary: string;
  evidence: Record<string, unknown>;
  by: string;
  time?: string;
}

/** A thing with content: a variable, file, source, module, display, model, image or report. */
export interface Artifact {
  name: string;
  kind: string;
  digest?: string | null;
  size?: number | null;
  type?: string;
  stored?: boolean;
  facts?: string | null;
  made?: string | null;
  why?: string;
  query?: string;
  numbers?: number[];
}

/** All that is on record of a cell run. */
export interface CellDetail {
  row: Row;
  source: string;
  redacted: number;
  overhead: number;
  error: string;
  failed_line: number;
  tickets: Ticket[];
  after: string[];
  inputs: Artifact[];
  outputs: Artifact[];
  removed: string[];
  files_read: Artifact[];
  files_written: Artifact[];
  sources: Artifact[];
  modules: Artifact[];
  imported: string[];
  displays: Artifact[];
  randomness: Record<string, string>;
  logged: Logged[];
  gaps: Gap[];
  checkpoint: boolean;
  run: RunRow | null;
  environment: Environment | null;
  code: CodeState | null;
}

/** The last cell run of each cell of a notebook; `mark` as in `Overview`. */
export interface Cells {
  rows: Row[];
  mark: string;
}

/** The state of the code around a cell. */
export interface CodeState {
  commit?: string;
  branch?: string;
  remote?: string;
  dirty?: Artifact[];
  modules?: Artifact[];
  gaps?: Gap[];
}

/** The interpreter and what is installed beside it. */
export interface Environment {
  python?: string;
  implementation?: string;
  platform?: string;
  machine?: string;
  cpu?: string;
  cores?: number;
  memory?: number;
  gpus?: string[];
  driver?: string;
  packages?: Package[];
  variables?: Record<string, string>;
  other_variables?: string[];
  gaps?: Gap[];
}

/** Something that keeps a cell from being what the notebook says. */
export interface Finding {
  kind: string;
  answer: string;
  reason: string;
  cell?: number;
  id?: string;
  cell_run?: string | null;
  names?: string[];
}

/** Something that could not be recorded, said openly. */
export interface Gap {
  subject: string;
  reason: string;
  blocks?: boolean;
}

/** A metric, parameter, tag or artifact that a cell logged, its values in their order. */
export interface Logged {
  what: string;
  key: string;
  values: unknown[];
}

/** A model: its versions, newest first, and its aliases. */
export interface ModelDetail {
  name: string;
  versions: VersionRow[];
  aliases: AliasRow[];
}

/** A model, its latest version, and where its aliases point. */
export interface ModelRow {
  name: string;
  versions: number;
  latest: number;
  time: string;
  by: string;
  aliases: Record<string, number>;
}

/** All models. */
export interface Models {
  models: ModelRow[];
}

/** What there is for a notebook. */
export interface Overview {
  version: string;
  protocol: number;
  store: string;
  root: string;
  notebook: string;
  cell_runs: number;
  others: number;
  mark: string;
  problems: string[];
}

/** An installed distribution. */
export interface Package {
  name: string;
  version: string;
  origin?: string;
  loaded?: string;
}

/** Why there is no answer: the thing, the cause, what to do next. `kind` is for programs. */
export interface Refusal {
  kind: string;
  message: string;
  cause?: string;
  next?: string;
}

/** A cell run as one row of a list. */
export interface Row {
  id: string;
  time: string;
  run: string;
  notebook: string;
  cell: string;
  count: number;
  status: string;
  title: string;
  lines: number;
  label: string;
  seconds: number;
  error: string;
  made: string[];
  made_count: number;
  metrics: Record<string, unknown>;
  marks: string[];
  parent: string | null;
  trigger: string;
  position: number;
}

/** A piece of a list of cell runs, newest first. */
export interface Rows {
  rows: Row[];
  total: number;
  next: number | null;
  mark: string;
}

/** A run: a person's session, or a headless one. */
export interface RunRow {
  id: string;
  time: string;
  trigger: string;
  notebook: string;
  status: string;
  seconds: number;
  user: string;
  parameters: Record<string, unknown>;
  tickets: Ticket[];
  error: string;
  outputs: Artifact[];
}

/** A piece of the list of runs, newest first. */
export interface Runs {
  runs: RunRow[];
  next: number | null;
}

/** Whether a notebook as it stands on disk would make what is in memory, and what keeps each cell from it. */
export interface StandingAnswer {
  notebook: string;
  run: string | null;
  reproduces: string;
  why: string;
  cells: number;
  ran: number;
  findings: Finding[];
  mark: string;
}

/** A move of an alias, or a refusal: from which version to which, by whom, why, and what was asked. */
export interface Step {
  time: string;
  old: number | null;
  new: number | null;
  refused: boolean;
  by: string;
  reason: string;
  tickets: Ticket[];
  checks: Answered[];
}

/** A reference into a tracker of work: ``JIRA-123``, ``#42``, with its address if it has one. */
export interface Ticket {
  id: string;
  url?: string;
}

/** A version of a model; `checks` are the last answers to each gate. */
export interface VersionRow {
  version: number;
  id: string;
  time: string;
  by: string;
  aliases: string[];
  format: string;
  type: string;
  size: number | null;
  digest: string | null;
  metrics: Record<string, unknown>;
  parameters: Record<string, unknown>;
  tags: Record<string, string>;
  description: string;
  requirements: string[];
  training: Artifact[];
  gaps: Gap[];
  cell_run: string | null;
  run: string | null;
  checks: Answered[];
}
