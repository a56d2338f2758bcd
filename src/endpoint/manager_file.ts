/**
 * What managers are told, made of the endpoint's configuration.
 * @module
 */
import type { BusAccess } from "../bus/mod.ts";
import { isPool, type UserEndpointConfig } from "../config/mod.ts";
import type { ManagerConfig } from "../manager/manager_config.ts";

/** Bytes of a serialized result that the service takes (protocol.md section 2). */
const RESULT_LIMIT = 10 * 1024 * 1024;

/** The managers' configuration. */
export function managerConfigFor(
  options: { config: UserEndpointConfig; endpointId: string; dir: string; bus: BusAccess },
): ManagerConfig {
  const { config, endpointId, dir, bus } = options;
  const { engine } = config;
  const common = {
    endpointId,
    endpointDir: dir,
    bus,
    python: engine.python,
    workingDir: engine.workingDir,
    allowedSerializers: engine.allowedSerializers,
    logDir: `${dir}/manager_logs`,
    resultLimitBytes: RESULT_LIMIT,
    container: null,
    mpi: null,
    walltimeMs: null,
  };
  if (isPool(engine)) {
    return {
      ...common,
      workerKind: engine.type === "ThreadPoolEngine" ? "threads" : "processes",
      maxWorkers: engine.maxWorkers,
      coresPerWorker: 0,
      memPerWorker: null,
      prefetch: 0,
      cpuAffinity: "none",
      availableAccelerators: [],
      maxTasksPerChild: engine.maxTasksPerChild,
      threadNamePrefix: engine.threadNamePrefix,
      runInSandbox: false,
      heartbeatPeriodMs: 15_000,
      heartbeatThresholdMs: 60_000,
      drainPeriodMs: null,
      debug: config.debug,
    };
  }
  return {
    ...common,
    workerKind: "processes",
    maxWorkers: engine.maxWorkersPerNode,
    coresPerWorker: engine.coresPerWorker,
    memPerWorker: engine.memPerWorker,
    prefetch: engine.prefetchCapacity,
    cpuAffinity: engine.cpuAffinity,
    availableAccelerators: engine.availableAccelerators,
    maxTasksPerChild: null,
    threadNamePrefix: "",
    runInSandbox: engine.runInSandbox,
    heartbeatPeriodMs: engine.heartbeatPeriodMs,
    heartbeatThresholdMs: engine.heartbeatThresholdMs,
    drainPeriodMs: engine.drainPeriodMs,
    debug: engine.workerDebug,
  };
}
