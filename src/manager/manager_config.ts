/**
 * What a manager is told: one JSON file (0600) in the endpoint's state directory, written by the endpoint for all its blocks.
 * @module
 */
import type { BusAccess } from "../bus/types.ts";
import type { ContainerConfig } from "../config/types.ts";

/** Configuration of `endpoint manager --config FILE --block ID`. Durations in milliseconds. */
export interface ManagerConfig {
  /** UUID of the endpoint. */
  endpointId: string;
  /** The endpoint's directory. */
  endpointDir: string;
  /** The bus. */
  bus: BusAccess;
  /** Interpreter for the workers; looked up in PATH of the job (after `worker_init`). */
  python: string;
  /** `processes` with a fork server, or one process with threads (ThreadPoolEngine). */
  workerKind: "processes" | "threads";
  /** `null`: bounded by cores, memory and accelerators alone. */
  maxWorkers: number | null;
  /** Cores of a worker; may be a fraction. */
  coresPerWorker: number;
  /** GB. */
  memPerWorker: number | null;
  /** Tasks taken beyond free workers. */
  prefetch: number;
  /** How workers are bound to cores. */
  cpuAffinity: string;
  /** Devices, one a worker. */
  availableAccelerators: string[];
  /** Tasks after which a worker process is replaced. */
  maxTasksPerChild: number | null;
  /** Begins the names of threads. */
  threadNamePrefix: string;
  /** Absolute. */
  workingDir: string;
  /** Whether each task gets a directory of its own. */
  runInSandbox: boolean;
  /** What may be deserialized; `null`: everything. */
  allowedSerializers: string[] | null;
  /** Between two reports. */
  heartbeatPeriodMs: number;
  /** Silence after which the other side counts as lost. */
  heartbeatThresholdMs: number;
  /** Age after which no more tasks are taken. */
  drainPeriodMs: number | null;
  /** Time the block has; `null`: no end. */
  walltimeMs: number | null;
  /** Not used here. */
  container: ContainerConfig | null;
  /** MPI engine only. */
  mpi: { launcher: "mpiexec" | "srun" | "aprun"; maxWorkersPerBlock: number } | null;
  /** Absolute; a folder for each manager is made below. */
  logDir: string;
  /** Whether everything is logged. */
  debug: boolean;
  /** Bytes of a serialized result that are answered; larger ones are kept on site. 10 MiB. */
  resultLimitBytes: number;
}
