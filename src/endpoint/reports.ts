/**
 * What is told to the service: the registration and the status reports (protocol.md sections 2 and 6).
 * @module
 */
import { type EndpointPaths, readIfThere, STANDS_IN_FOR, VERSION, wallMs } from "../base/mod.ts";
import type { ManagerReport } from "../bus/mod.ts";
import type { Registration } from "../compute/mod.ts";
import { isPool, type UserEndpointConfig } from "../config/mod.ts";
import type { BridgeCounts } from "./bridge.ts";

/** The registration of a single-configuration endpoint. */
export function registrationOf(
  options: { name: string; config: UserEndpointConfig },
): Registration {
  const { name, config } = options;
  return {
    endpoint_name: name,
    display_name: config.displayName,
    public: false,
    high_assurance: config.highAssurance,
    multi_user: false,
    allowed_functions: config.allowedFunctions ?? undefined,
    authentication_policy: config.authenticationPolicy ?? undefined,
    subscription_uuid: config.subscriptionId ?? undefined,
    admins: config.admins ?? undefined,
    metadata: {
      endpoint_version: STANDS_IN_FOR,
      software: `endpoint ${VERSION}`,
      hostname: Deno.hostname(),
      local_user: Deno.env.get("USER") ?? String(Deno.uid()),
    },
  };
}

/** The `global_state` of a status report. */
export function statusReport(options: {
  config: UserEndpointConfig;
  active: boolean;
  counts: BridgeCounts;
  managers: ManagerReport[];
  startedMs: number;
  broken: string | null;
}): Record<string, unknown> {
  const { config, active, counts, managers, startedMs } = options;
  const { engine } = config;
  const sum = (of: (report: ManagerReport) => number) =>
    managers.reduce((total, report) => total + of(report), 0);
  const nodes: Record<string, unknown[]> = {};
  for (const report of managers) {
    (nodes[report.jobId ?? report.blockId] ??= []).push({
      worker_count: report.workers,
      idle_duration: report.idleMs / 1000,
      parsl_version: null,
      endpoint_version: STANDS_IN_FOR,
      sdk_version: null,
      python_version: report.pythonVersion,
    });
  }
  const blocks = isPool(engine) ? null : engine;
  return {
    managers: managers.length,
    active_managers: managers.filter((report) => !report.draining).length,
    total_workers: sum((report) => report.workers),
    idle_workers: sum((report) => report.idleWorkers),
    pending_tasks: counts.waiting,
    outstanding_tasks: counts.waiting + counts.running + counts.answering,
    total_tasks: counts.received,
    scaling_enabled: blocks !== null && blocks.strategy.type !== "none",
    mem_per_worker: blocks?.memPerWorker ?? null,
    cores_per_worker: blocks?.coresPerWorker ?? null,
    prefetch_capacity: blocks?.prefetchCapacity ?? null,
    max_blocks: blocks?.provider.maxBlocks ?? 1,
    min_blocks: blocks?.provider.minBlocks ?? 1,
    max_workers_per_node: blocks
      ? blocks.maxWorkersPerNode
      : (engine as { maxWorkers: number }).maxWorkers,
    nodes_per_block: blocks?.provider.nodesPerBlock ?? 1,
    node_info: nodes,
    engine_type: engine.type,
    provider_type: blocks?.provider.type ?? null,
    broken: options.broken,
    posix_username: Deno.env.get("USER") ?? null,
    posix_uid: Deno.uid(),
    posix_gid: Deno.gid(),
    posix_pid: Deno.pid,
    posix_ppid: Deno.ppid,
    start_iso: new Date(startedMs).toISOString(),
    start_unix: Math.floor(startedMs / 1000),
    uptime: Math.floor((wallMs() - startedMs) / 1000),
    heartbeat_period: config.heartbeatPeriodMs / 1000,
    active,
  };
}

/** The id under which this endpoint was registered before, if it was. */
export function knownId(paths: EndpointPaths): string | null {
  try {
    const { endpoint_id } = JSON.parse(readIfThere(paths.registration) ?? "{}");
    return typeof endpoint_id === "string" ? endpoint_id : null;
  } catch {
    return null;
  }
}
