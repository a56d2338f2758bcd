/**
 * What a manager is told: one JSON file (0600) in the endpoint's state directory, written by the endpoint for all its blocks.
 * @module
 */
import type { BusAccess } from "../bus/types.ts";
import type { ContainerConfig } from "../config/types.ts";

/** Configuration of `endpoint manager --config FILE --block ID`. Durations in milliseconds. */
export interface ManagerConfig {
  endpointId: string;
  endpointDir: string;
  bus: BusAccess;
  /** Interpreter for the workers; looked up in PATH of the job (after `worker_init`). */
  python: string;
  /** `processes` with a fork server, or one process with threads (ThreadPoolEngine). */
  workerKind: "processes" | "threads";
  /** `null`: bounded by cores, memory and accelerators alone. */
  maxWorkers: number | null;
  coresPerWorker: number;
  /** GB. */
  memPerWorker: number | null;
  prefetch: number;
  cpuAffinity: string;
  availableAccelerators: string[];
  /** Tasks after which a worker process is replaced. */
  maxTasksPerChild: number | null;
  threadNamePrefix: string;
  /** Absolute. */
  workingDir: string;
  runInSandbox: boolean;
  allowedSerializers: string[] | null;
  heartbeatPeriodMs: number;
  heartbeatThresholdMs: number;
  drainPeriodMs: number | null;
  walltimeMs: number | null;
  container: ContainerConfig | null;
  mpi: { launcher: "mpiexec" | "srun" | "aprun"; maxWorkersPerBlock: number } | null;
  /** Absolute; a folder for each manager is made below. */
  logDir: string;
  debug: boolean;
  /** Bytes of a serialized result that are answered; larger ones are kept on site. 10 MiB. */
  resultLimitBytes: number;
}
