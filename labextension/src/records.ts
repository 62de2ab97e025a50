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

/** Somebody's last word on a version: approved, or withdrawn. */
export interface Approval {
  by: string;
  time: string;
  reason: string;
  withdrawn: boolean;
}

/** Approve exactly this version, or take that back. */
export interface Approve {
  version: number;
  reason?: string;
  tickets?: string[];
  withdraw?: boolean;
}

/** An approval that is on record now, or was taken back. */
export interface Approved {
  name: string;
  version: number;
  by: string;
  withdrawn: boolean;
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

/** Something that is not the same in all runs. */
export interface Aspect {
  what: string;
  name: string;
  values: unknown[];
}

/** Where a run is: in which cell of how many; 0 before the first. */
export interface At {
  step: string;
  cell: number;
  cells: number;
}

/** A version's card, as Markdown in which nothing recorded is more than text. */
export interface Card {
  markdown: string;
}

/** A cell that two runs have not in common, or in which they differ. */
export interface CellChange {
  cell: string;
  source: string;
  differs: string[];
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

/** One thing that is different. */
export interface Change {
  what: string;
  name: string;
  old?: unknown;
  new?: unknown;
}

/** Ask a version these gates; those that the project's settings demand for the alias, where none are named. */
export interface Check {
  version: number;
  alias?: string;
  gates?: string[];
}

/** Write the code and files of a cell run, run or model into a folder that is new or empty. */
export interface CheckOut {
  what: string;
  folder: string;
}

/** What gates answered of a version; it is on record. */
export interface Checked {
  name: string;
  version: number;
  alias: string;
  passed: boolean;
  checks: Answered[];
}

/** What was written into a folder; paths as the server's contents name them. */
export interface CheckedOut {
  folder: string;
  notebook: string;
  commit: string;
  placed: Placed[];
  missing: Artifact[];
  gaps: Gap[];
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

/** Runs side by side. */
export interface Compared {
  runs: MeasuredRun[];
  aspects: Aspect[];
  cells: ComparedCell[];
  shown: Shown[];
  unknown: string[];
}

/** A cell in which runs differ from the first. */
export interface ComparedCell {
  cell: string;
  source: string;
  differs: string[][];
  diffs: string[][];
}

/** Make a virtual environment with a kernel from what something used. */
export interface CreateEnvironment {
  what: string;
  offline?: boolean;
  folder: string;
  kernel?: string;
  download?: boolean;
}

/** What is to be said with whatever is done with models. */
export interface Demands {
  register?: ('reason' | 'ticket')[];
  approve?: ('reason' | 'ticket')[];
  promote?: Record<string, ('reason' | 'ticket')[]>;
  rollback?: Record<string, ('reason' | 'ticket')[]>;
}

/** What is different between two things of one kind. */
export interface DifferenceAnswer {
  kind: string;
  old: Side;
  new: Side;
  same: boolean;
  changes: Change[];
  source: string[];
  values: ValueChange[];
  cells: CellChange[];
  environment: EnvironmentChange | null;
  unknown: string[];
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

/** What a run stands in, and what changed since another one; `old` is None where none was named. */
export interface EnvironmentAnswer {
  old: Surroundings | null;
  new: Surroundings;
  known: boolean;
  difference: EnvironmentChange;
  code: Change[];
}

/** How two environments differ. */
export interface EnvironmentChange {
  facts: Change[];
  added: Package[];
  removed: Package[];
  changed: PackageChange[];
  variables: Change[];
}

/** What a notebook can be given. */
export interface Field {
  name: string;
  type: string;
  default: string;
  choices: string[];
  help: string;
  secret: boolean;
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

/** What a notebook can be given, and where it can run. */
export interface Form {
  notebook: string;
  declares: boolean;
  why: string;
  fields: Field[];
  targets: Somewhere[];
  output: string;
}

/** Something that could not be recorded, said openly. */
export interface Gap {
  subject: string;
  reason: string;
  blocks?: boolean;
}

/** Why a model may not have an alias: what was asked, and answered. */
export interface GateRefusal {
  kind: string;
  message: string;
  cause?: string;
  next?: string;
  checks: Answered[];
}

/** Make a project in a folder; with `notebook`, a small one to begin with. */
export interface Init {
  notebook: boolean;
}

/** A job. */
export interface Job {
  id: string;
  verb: string;
  command: string;
  path: string;
  root: string;
  state: string;
  code: number | null;
  began: string;
  seconds: number;
  progress: Progress;
  run: string | null;
  said: string[];
  answer: unknown;
}

/** Jobs, newest first. */
export interface JobList {
  jobs: Job[];
}

/** Where something comes from. */
export interface Lineage {
  of: string;
  title: string;
  root: string;
  nodes: LineageNode[];
  edges: LineageEdge[];
  cell_runs: number;
  beyond: number;
  outside: boolean;
  mark: string;
}

/** What something comes from: `source` came before `target`. */
export interface LineageEdge {
  source: string;
  target: string;
}

/** Something a lineage leads through. */
export interface LineageNode {
  id: string;
  kind: string;
  label: string;
  detail: string;
  cell_run: string | null;
  status: string;
  marks: string[];
}

/** Lock exactly what something used. */
export interface LockEnvironment {
  what: string;
  offline?: boolean;
  output: string;
  requirements?: boolean;
  everything?: boolean;
  replace?: boolean;
}

/** A metric, parameter, tag or artifact that a cell logged, its values in their order. */
export interface Logged {
  what: string;
  key: string;
  values: unknown[];
}

/** A run with what its cells logged: the last value of each metric, and of each parameter. */
export interface MeasuredRun {
  id: string;
  time: string;
  trigger: string;
  notebook: string;
  status: string;
  seconds: number;
  user: string;
  on_behalf_of: string;
  parameters: Record<string, unknown>;
  tickets: Ticket[];
  error: string;
  outputs: Artifact[];
  parent: string | null;
  result: string;
  metrics: Record<string, unknown>;
  logged: Record<string, unknown>;
  unread: number;
}

/** A model: its versions, newest first, and its aliases. */
export interface ModelDetail {
  name: string;
  versions: VersionRow[];
  aliases: AliasRow[];
  policy: Record<string, string[]>;
  default: string[];
  demands: Demands;
  unreadable: string;
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

/** All models; `demands` as in `ModelDetail`. */
export interface Models {
  models: ModelRow[];
  demands: Demands;
}

/** Where an alias points now, and where it did before; who moved it, and what was asked. */
export interface Moved {
  name: string;
  alias: string;
  version: number;
  old: number | null;
  by: string;
  checks: Answered[];
}

/** Something that can be asked for. */
export interface Name {
  name: string;
  kind: string;
  detail: string;
  of: string;
}

/** What a notebook made and logged, the latest first, and the project's models. */
export interface Names {
  names: Name[];
}

/** Whether an order will do. */
export interface OrderChecked {
  problems: Record<string, string>;
  problem: string;
  command: string;
  runs: number;
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

/** A package in another version, from elsewhere, or loaded in another version. */
export interface PackageChange {
  old: Package;
  new: Package;
}

/** A file of a checkout. */
export interface Placed {
  path: string;
  origin: string;
  digest?: string | null;
  executable?: boolean;
}

/** An image that a cell showed, as base64. */
export interface Plot {
  cell: string;
  name: string;
  type: string;
  data: string;
}

/** How far a job is. */
export interface Progress {
  done: number;
  steps: number;
  now: At[];
}

/** Point an alias to a version, if it passes what the project's settings demand, and these gates too. */
export interface Promote {
  version: number;
  alias: string;
  gates?: string[];
  reason?: string;
  tickets?: string[];
}

/** Why there is no answer: the thing, the cause, what to do next. `kind` is for programs. */
export interface Refusal {
  kind: string;
  message: string;
  cause?: string;
  next?: string;
}

/** Point an alias back to what it pointed to before. */
export interface RollBack {
  alias: string;
  reason?: string;
  tickets?: string[];
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

/** Run a notebook once. */
export interface RunNotebook {
  parameters: Record<string, string>;
  target?: string;
  cache?: 'cells' | 'notebook' | 'off';
  retries?: number;
  timeout?: number | null;
  cell_timeout?: number | null;
  tickets?: string[];
  output?: string;
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
  on_behalf_of: string;
  parameters: Record<string, unknown>;
  tickets: Ticket[];
  error: string;
  outputs: Artifact[];
  parent: string | null;
  result: string;
}

/** A piece of the list of runs, newest first; `total` in all, `mark` as in `Overview`. */
export interface Runs {
  runs: MeasuredRun[];
  next: number | null;
  total: number;
  mark: string;
}

/** What a run showed: `plots` are those that were kept, of as many `images`. */
export interface Shown {
  images: number;
  plots: Plot[];
}

/** One of two things that are compared. */
export interface Side {
  id: string;
  title: string;
  time: string;
  count: number;
}

/** Write the smallest notebook that makes something; over no file that is there. */
export interface Slice {
  what: string;
  output: string;
  allow_unseeded?: boolean;
}

/** A notebook that was written; its path as the server's contents name it. */
export interface Sliced {
  notebook: string;
  makes: string;
  cells: number;
  files: string[];
  unseeded: Gap[];
}

/** A target: a place where notebooks can run; `why` says what keeps it from being used. */
export interface Somewhere {
  name: string;
  kind: string;
  about: string;
  why: string;
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

/** A move of an alias, or a refusal: from which version to which, by whom, why, what was asked and not said. */
export interface Step {
  time: string;
  old: number | null;
  new: number | null;
  refused: boolean;
  by: string;
  reason: string;
  tickets: Ticket[];
  checks: Answered[];
  lacking: string[];
}

/** What a run stood in when it was last seen. */
export interface Surroundings {
  run: RunRow;
  cell_run: string | null;
  environment: Environment | null;
  code: CodeState | null;
}

/** Run a notebook over many parameters. */
export interface SweepNotebook {
  parameters: Record<string, string>;
  target?: string;
  cache?: 'cells' | 'notebook' | 'off';
  retries?: number;
  timeout?: number | null;
  cell_timeout?: number | null;
  tickets?: string[];
  best?: string;
  draws?: number | null;
}

/** A reference into a tracker of work: ``JIRA-123``, ``#42``, with its address if it has one. */
export interface Ticket {
  id: string;
  url?: string;
}

/** How a content differs that both sides have, by what is on record of it; `unknown` could not be compared. */
export interface ValueChange {
  name: string;
  what: string;
  changes: Change[];
  unknown: string[];
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
  approvals: Approval[];
}
