/**
 * From a file to a resolved configuration; every fault names key, file and line.
 * @module
 */
import type { z } from "zod";
import { endpointPaths, EX, expandPath, readUserFile, UserError } from "../base/mod.ts";
import { nearest } from "./nearest.ts";
import { engines, providers, userEndpoint } from "./schema.ts";
import type { BusConfig, EngineConfig, UserEndpointConfig } from "./types.ts";
import { type ParsedYaml, parseYaml } from "./yaml.ts";

/** Keys that other versions know, and what to write instead. */
const REFUSED: Record<string, string> = {
  multi_user: "leave it out: an endpoint without `engine` is a manager endpoint",
  detach_endpoint: "use `endpoint start --detach`",
  executors: "write one `engine`",
  log_dir: "use paths: {endpoint_log: FILE}",
  stdout: "use paths: {endpoint_log: FILE}",
  stderr: "use paths: {endpoint_log: FILE}",
};

/** Reads and checks the configuration of the endpoint in `dir`. @throws {UserError} */
export function loadUserConfig(dir: string): UserEndpointConfig {
  const paths = endpointPaths(dir);
  if (exists(`${dir}/config.py`)) {
    throw new UserError(`${dir}/config.py: Python configurations are not supported`, {
      exit: EX.config,
      file: `${dir}/config.py`,
      hint: `Write the same keys into ${paths.config} and remove config.py`,
    });
  }
  return parseUserConfig(readUserFile(paths.config, "configuration"), {
    source: paths.config,
    dir,
  });
}

/** Checks configuration text. @param where `source` names it in errors, `dir` is the endpoint's directory */
export function parseUserConfig(
  text: string,
  where: { source: string; dir: string },
): UserEndpointConfig {
  const { source, dir } = where;
  const yaml = parseYaml(text, source);
  const top = yaml.value;
  if (top === null || top === undefined || typeof top !== "object" || Array.isArray(top)) {
    const what = top === null || top === undefined ? "is empty" : "is no mapping of keys to values";
    throw new UserError(`The configuration ${source} ${what}`, {
      exit: EX.config,
      file: source,
      hint: "It needs at least an `engine`; `endpoint configure NAME` writes one with comments",
    });
  }
  const check = new Checker(yaml, source);
  const config = check.run(userEndpoint, top, []);
  const engine = resolveEngine(check, config.engine, dir);
  return {
    kind: "user",
    source,
    displayName: config.display_name,
    allowedFunctions: config.allowed_functions,
    authenticationPolicy: config.authentication_policy,
    subscriptionId: config.subscription_id,
    amqpPort: config.amqp_port,
    heartbeatPeriodMs: config.heartbeat_period * 1000,
    environment: config.environment,
    localComputeServices: config.local_compute_services,
    debug: config.debug,
    admins: config.admins,
    highAssurance: false,
    engine,
    heartbeatThresholdMs: config.heartbeat_threshold * 1000,
    idleHeartbeatsSoft: config.idle_heartbeats_soft,
    idleHeartbeatsHard: config.idle_heartbeats_hard,
    endpointSetup: config.endpoint_setup,
    endpointTeardown: config.endpoint_teardown,
    paths: { endpointDir: null, endpointLog: null },
    bus: resolveBus(config.bus),
    maxStoredTasks: config.max_stored_tasks,
    maxStoredBytes: config.max_stored_bytes,
  };
}

/** Runs schemas and turns their issues into one error. */
class Checker {
  readonly #yaml: ParsedYaml;
  readonly #source: string;

  constructor(yaml: ParsedYaml, source: string) {
    this.#yaml = yaml;
    this.#source = source;
  }

  run<T extends z.ZodType>(schema: T, value: unknown, path: PropertyKey[]): z.output<T> {
    const result = schema.safeParse(value);
    if (result.success) return result.data;
    const issue = result.error.issues[0]!;
    if (issue.code === "unrecognized_keys") {
      throw this.unknown(issue.keys[0]!, [...path, ...issue.path], keysOf(schema));
    }
    throw this.fault([...path, ...issue.path], issue.message);
  }

  unknown(key: string, path: PropertyKey[], known: string[]): UserError {
    const old = REFUSED[key];
    const near = nearest(key, known);
    return this.fault(
      [...path, key],
      old ? "is not supported" : "is not a key that is known here",
      old ?? (near && `Did you mean ${near}?`),
    );
  }

  fault(path: PropertyKey[], why: string, hint?: string): UserError {
    const line = this.#yaml.lineOf(path);
    const at = line ? `${this.#source}:${line}` : this.#source;
    return new UserError(`${at}: ${path.map(String).join(".")}: ${why}`, {
      exit: EX.config,
      file: at,
      hint,
    });
  }
}

function keysOf(schema: z.ZodType): string[] {
  return Object.keys((schema as { shape?: Record<string, unknown> }).shape ?? {});
}

function pick<T>(
  check: Checker,
  table: Record<string, T>,
  options: { value: unknown; path: PropertyKey[]; later: string[] },
): T {
  const { value, path, later } = options;
  const type = (value as { type?: unknown } | null)?.type;
  if (typeof type !== "string") {
    throw check.fault([...path, "type"], "is missing", `One of ${Object.keys(table).join(", ")}`);
  }
  const found = table[type];
  if (found) return found;
  if (later.includes(type)) {
    throw check.fault([...path, "type"], `${type} is not built yet in this version`);
  }
  const near = nearest(type, [...Object.keys(table), ...later]);
  throw check.fault([...path, "type"], `${type} is not known`, near && `Did you mean ${near}?`);
}

function resolveEngine(check: Checker, value: unknown, dir: string): EngineConfig {
  if (value === undefined || value === null) {
    throw check.fault(["engine"], "is missing; manager endpoints are not built yet");
  }
  const schema = pick(check, engines as Record<string, z.ZodType>, {
    value,
    path: ["engine"],
    later: ["GlobusMPIEngine"],
  });
  const engine = check.run(schema, value, ["engine"]) as z.output<
    typeof engines[keyof typeof engines]
  >;
  if (engine.type !== "GlobusComputeEngine") {
    return {
      type: engine.type,
      label: engine.label ?? engine.type,
      maxWorkers: engine.max_workers ?? navigator.hardwareConcurrency,
      maxTasksPerChild: engine.type === "ProcessPoolEngine" ? engine.max_tasks_per_child : null,
      threadNamePrefix: engine.type === "ThreadPoolEngine" ? engine.thread_name_prefix : "",
      workingDir: `${dir}/tasks_working_dir`,
      allowedSerializers: engine.allowed_serializers,
      python: engine.python,
    };
  }
  const provider = engine.provider ?? { type: "LocalProvider" };
  const providerSchema = pick(check, providers as Record<string, z.ZodType>, {
    value: provider,
    path: ["engine", "provider"],
    later: [
      "SlurmProvider",
      "PBSProProvider",
      "TorqueProvider",
      "LSFProvider",
      "GridEngineProvider",
    ]
      .concat("CondorProvider", "KubernetesProvider"),
  });
  const local = check.run(providerSchema, provider, ["engine", "provider"]) as z.output<
    typeof providers.LocalProvider
  >;
  const { strategy, job_status_kwargs: jobs } = engine;
  const object = typeof strategy === "object" ? strategy : null;
  const named = jobs?.strategy ?? (typeof strategy === "string" ? strategy : object?.type);
  const workingDir = expandPath(engine.working_dir);
  return {
    type: engine.type,
    label: engine.label,
    provider: {
      type: local.type,
      nodesPerBlock: local.nodes_per_block,
      initBlocks: local.init_blocks,
      minBlocks: local.min_blocks,
      maxBlocks: local.max_blocks,
      parallelism: local.parallelism,
      workerInit: local.worker_init,
      cmdTimeoutMs: local.cmd_timeout * 1000,
      walltimeMs: null,
      launcher: {
        type: local.launcher?.type ?? "SingleNodeLauncher",
        debug: local.launcher?.debug ?? true,
        overrides: "",
        prepend: local.launcher?.prepend ?? "",
        failOnAny: local.launcher?.fail_on_any ?? false,
        bindCmd: "",
        bashLocation: "/bin/bash",
      },
    },
    address: null,
    maxWorkersPerNode: engine.max_workers_per_node,
    coresPerWorker: engine.cores_per_worker,
    memPerWorker: engine.mem_per_worker,
    prefetchCapacity: engine.prefetch_capacity,
    cpuAffinity: engine.cpu_affinity,
    availableAccelerators: engine.available_accelerators,
    maxRetriesOnSystemFailure: engine.max_retries_on_system_failure,
    encrypted: engine.encrypted,
    runInSandbox: engine.run_in_sandbox,
    workingDir: workingDir.startsWith("/") ? workingDir : `${dir}/${workingDir}`,
    allowedSerializers: engine.allowed_serializers,
    container: null,
    strategy: {
      type: named === "none" ? "none" : "simple",
      maxIdletimeMs: (jobs?.max_idletime ?? object?.max_idletime ?? 120) * 1000,
      periodMs: (jobs?.strategy_period ?? 5) * 1000,
    },
    heartbeatPeriodMs: engine.heartbeat_period * 1000,
    heartbeatThresholdMs: engine.heartbeat_threshold * 1000,
    workerDebug: engine.worker_debug,
    drainPeriodMs: engine.drain_period === null ? null : engine.drain_period * 1000,
    blockErrorHandler: true,
    addressProbeTimeoutMs: 30_000,
    workerLogdirRoot: null,
    python: engine.python,
    mpi: null,
  };
}

function resolveBus(bus: z.output<typeof userEndpoint>["bus"]): BusConfig {
  return {
    servers: bus?.servers ?? [],
    credentials: bus?.credentials ?? null,
    managerCredentials: bus?.manager_credentials ?? null,
    caFile: bus?.ca_file ?? null,
    tls: bus?.tls ?? true,
    storeDir: bus?.store_dir ?? null,
    port: bus?.port ?? null,
  };
}

function exists(path: string): boolean {
  try {
    Deno.lstatSync(path);
    return true;
  } catch {
    return false;
  }
}
