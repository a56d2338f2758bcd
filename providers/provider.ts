/**
 * The interface of every provider: a batch scheduler (or this host) that runs blocks.
 *
 * A provider turns a block into one job, asks for the states of many jobs at once and cancels jobs.
 * It keeps no memory of its jobs: who calls it does, so that a restarted endpoint finds them again.
 * @module
 */

/** States of a job, as all schedulers' states are read. */
export type JobState =
  | "pending"
  | "running"
  | "completed"
  | "cancelled"
  | "failed"
  | "timeout"
  | "held"
  | "unknown"
  /** The scheduler no longer knows the job, not even in its history. */
  | "missing";

/** What is known of one job. */
export interface JobStatus {
  state: JobState;
  /** The scheduler's own word for the state, and its reason if it gives one. */
  native?: string;
  exitCode?: number;
}

/** One block to be submitted. */
export interface BlockSpec {
  /** Job name; carries the endpoint's id, so that jobs can be recognised: `gc-<id8>-<block>`. */
  name: string;
  blockId: string;
  /** Folder for the script and the job's output files; exists. */
  dir: string;
  /** Shell text that starts the managers of the block (the launcher has wrapped it already). */
  command: string;
  nodes: number;
  /** Tasks (managers) on one node, always 1 for now. */
  tasksPerNode: number;
}

/** A job that the scheduler accepted. */
export interface SubmittedJob {
  jobId: string;
  /** The script that was submitted, for the user who looks for it. */
  scriptPath: string | null;
  stdoutPath: string | null;
  stderrPath: string | null;
}

/** Why a submission was not accepted. */
export class SubmitError extends Error {
  override name = "SubmitError";
  /** `invalid`: the scheduler refuses this request for good; `transient`: another try may help. */
  readonly kind: "invalid" | "transient";
  /** What the scheduler's command printed. */
  readonly output: string;
  readonly scriptPath: string | null;

  constructor(
    message: string,
    options: {
      kind: "invalid" | "transient";
      output: string;
      scriptPath?: string | null;
      cause?: unknown;
    },
  ) {
    super(message, { cause: options.cause });
    this.kind = options.kind;
    this.output = options.output;
    this.scriptPath = options.scriptPath ?? null;
  }
}

/** A batch scheduler, or this host. */
export interface Provider {
  /** The public name: `SlurmProvider`. */
  readonly type: string;
  /** How often states may be asked for, in milliseconds (60 s; Local 5 s). */
  readonly statusPeriodMs: number;
  /** Cores of a node for scaling, or `null` if nothing is known. */
  readonly coresPerNode: number | null;
  /** GB of a node for scaling. */
  readonly memPerNode: number | null;
  /** Writes the script and submits it. @throws {SubmitError} */
  submit(spec: BlockSpec, signal?: AbortSignal): Promise<SubmittedJob>;
  /**
   * States of the jobs, by id, in as few queries as can be. Jobs that the scheduler does not mention
   * are looked up in its history; still unknown ones are `missing`.
   * @throws if a query failed or answered nonsense: then nothing is known, and nothing changes
   */
  status(jobIds: string[], signal?: AbortSignal): Promise<Map<string, JobStatus>>;
  /** Cancels jobs; one that has ended already is no error. Gives the ids that could not be cancelled. */
  cancel(jobIds: string[], signal?: AbortSignal): Promise<string[]>;
  /** Jobs of this user whose name starts with `prefix`, for adoption after a crash. */
  find(prefix: string, signal?: AbortSignal): Promise<{ jobId: string; name: string }[]>;
}
