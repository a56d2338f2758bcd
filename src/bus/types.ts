/**
 * What other rooms see of the bus. NATS itself is known only inside this folder.
 * @module
 */

/** Where a manager finds the bus; the file may change while it runs and is read at each connect. */
export interface BusAddress {
  /** `host:port` candidates, in the order to be tried (all at once, first to answer wins). */
  servers: string[];
  /** Whether TLS is spoken. */
  tls: boolean;
  /** Authority of the server's certificate, PEM; `null` without TLS or for the system's. */
  ca: string | null;
  /** Name in the server's certificate, whatever the address. */
  serverName: string | null;
}

/** How a client proves its role. */
export interface BusAccess {
  /** File with a {@linkcode BusAddress} as JSON. */
  addressFile: string;
  /** File (0600) with the nkey seed of the role. */
  seedFile: string;
  /** UUID of the endpoint. */
  endpointId: string;
}

/** One task as the bus hands it to a manager. The body is the AMQP body, untouched. */
export interface TaskDelivery {
  /** UUID of the task, lower case. */
  readonly taskId: string;
  /** UUID of the function. */
  readonly functionId: string;
  /** Version byte and JSON; see compute/messages.ts. */
  readonly body: Uint8Array;
  /** JSON text, as the submitter gave it. */
  readonly resourceSpecification: string | null;
  /** Import paths of serializers for the result, in order. */
  readonly resultSerializers: string[] | null;
  /** Sequence in the TASKS stream. */
  readonly seq: number;
  /** Nanoseconds since the epoch at which the endpoint stored it, for timings. */
  readonly storedNs: number;
  /** Nanoseconds since the epoch at which the endpoint received it from AMQP. */
  readonly receivedNs: number;
}

/** A task that one manager runs now. */
export interface RunningTask {
  /** UUID of the task, lower case. */
  taskId: string;
  /** Sequence in the TASKS stream. */
  seq: number;
  /** Which attempt, from 1. */
  attempt: number;
  /** Milliseconds since the epoch. */
  startedMs: number;
  /** Index of the worker slot. */
  worker: number;
}

/** What a manager says of itself, at once and then every beat. */
export interface ManagerReport {
  /** Id of the manager, unique for each start. */
  managerId: string;
  /** Hex SHA-256 of the manager's session secret: its results carry the secret. */
  secretHash: string;
  /** Id of the block. */
  blockId: string;
  /** The scheduler's id of the job, where there is one. */
  jobId: string | null;
  /** Host name. */
  host: string;
  /** Process id. */
  pid: number;
  /** Boot id of the node. */
  bootId: string;
  /** Version of this program. */
  version: string;
  /** Python of the workers, once known. */
  pythonVersion: string | null;
  /** dill of the workers, once known. */
  dillVersion: string | null;
  /** Milliseconds since the epoch. */
  startedMs: number;
  /** Wall time at which its block ends, if known. */
  endsAtMs: number | null;
  /** Worker slots. */
  workers: number;
  /** Workers without a task. */
  idleWorkers: number;
  /** Tasks taken beyond free workers. */
  prefetch: number;
  /** Tasks in hand that have not begun (`begin` has not resolved). */
  waiting: number;
  /**
   * For how long the oldest of these has been in hand, in milliseconds; 0 if there is none. A task that was given
   * out twice keeps its start record until no manager can hold an old copy.
   */
  oldestWaitingMs: number;
  /** Tasks that run now. */
  running: RunningTask[];
  /** Milliseconds for which no worker had a task. */
  idleMs: number;
  /** Whether it takes no more tasks. */
  draining: boolean;
  /** Tasks done since its start. */
  tasksDone: number;
  /** Cores it may use. */
  coreCount: number;
  /** Memory of the node in GB. */
  memoryGb: number;
  /** Accelerators it shares out. */
  accelerators: number;
  /** Rises with each connection to the bus: a change means that deliveries may have been lost. */
  connection: number;
}

/** What the endpoint tells managers. */
export type ManagerCommand =
  /** End a waiting or running task; a result with an error answers it. */
  | { t: "cancel"; taskId: string }
  /** Take no more tasks, finish what runs (or end it, if `kill`), then exit. */
  | { t: "drain"; kill: boolean; reason: string }
  /** These tasks were given to others: end them without an answer. */
  | { t: "given-away"; taskIds: string[] }
  /** Report now. */
  | { t: "report" }
  /** The outbox is full or the endpoint is paused: take no new tasks until `on` is false. */
  | { t: "pause"; on: boolean };

/** Called by {@linkcode ManagerBus}. */
export interface ManagerBusEvents {
  /** A task arrived; room for it was given before. */
  onTask(task: TaskDelivery): void;
  /** The endpoint commands something. */
  onCommand(command: ManagerCommand): void;
  /** Connected, or connected again: a report is due. */
  onConnected(connection: number): void;
  /** The connection is gone; it comes back by itself. */
  onDisconnected(): void;
}

/** A manager's side of the bus. Reconnects for ever, reading the address file anew each time. */
export interface ManagerBus {
  /** Whether there is a connection now. */
  readonly connected: boolean;
  /** Room for so many more tasks; each delivery uses up one. */
  addRoom(tasks: number): void;
  /** Takes no more tasks; resolves when none can arrive any more. */
  stopTaking(): Promise<void>;
  /**
   * Asks the store for the right to begin a task. Must resolve to an attempt number before a worker sees the task.
   * @returns the attempt (from 1), or `null` if another manager began it or it was answered: drop it
   */
  begin(task: TaskDelivery, worker: number): Promise<number | null>;
  /** Gives back tasks that have not begun; they are delivered again to anybody. */
  giveBack(tasks: TaskDelivery[]): void;
  /**
   * Stores a finished result message; resolves once the store has it. Tries for ever, through
   * reconnects and a full outbox.
   */
  finish(result: FinishedTask): Promise<void>;
  /** Tells the endpoint how it stands. */
  report(report: ManagerReport): void;
  /** Says goodbye (the endpoint need not wait for beats), then closes. */
  close(reason: string): Promise<void>;
}

/** A result on its way to the outbox. */
export interface FinishedTask {
  /** A task by id. */
  task: TaskDelivery;
  /** Which attempt, from 1. */
  attempt: number;
  /** The whole result message as it goes to AMQP. */
  body: Uint8Array;
  /**
   * Set if not the task failed but what it ran on (worker killed, ...): the endpoint may allow another attempt, and else
   * answers with `body`. One line that says what happened.
   */
  systemFailure?: string;
}
