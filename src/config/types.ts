/**
 * What the rest of the program sees of a configuration: checked, defaults applied, durations in
 * milliseconds (`...Ms`), paths absolute. How users write it is in schema.ts; meanings and defaults are those of
 * the public agent unless said otherwise.
 * @module
 */

/** Keys that user endpoints and manager endpoints share. */
export interface CommonConfig {
  /** The file this came from, for error messages; `<standard input>` for a rendered template. */
  source: string;
  /** Name for people. */
  displayName: string | null;
  /** Function UUIDs that may run here; `null` for all. */
  allowedFunctions: string[] | null;
  /** UUID of a policy that callers must satisfy. */
  authenticationPolicy: string | null;
  /** UUID of the subscription it belongs to. */
  subscriptionId: string | null;
  /** Replaces the port of every AMQP URL that the service gives; `null`: as the service says. */
  amqpPort: 443 | 5671 | 5672 | null;
  /** Between two status reports. */
  heartbeatPeriodMs: number;
  /** Service environment; `null` for production or `GLOBUS_SDK_ENVIRONMENT`. */
  environment: string | null;
  /** The service is `http://localhost:5000`. */
  localComputeServices: boolean;
  /** Whether everything is logged. */
  debug: boolean;
  /** Identity UUIDs that may manage it. */
  admins: string[] | null;
  /** Whether it is a high-assurance endpoint. */
  highAssurance: boolean;
}

/** A manager endpoint: no `engine` block. Runs no tasks, starts user endpoints. */
export interface ManagerEndpointConfig extends CommonConfig {
  /** What went wrong, for those who decide by it. */
  kind: "manager";
  /** Whether everybody may use it. */
  public: boolean;
  /** `null`: the file of the usual name in the endpoint directory. */
  userConfigTemplatePath: string | null;
  /** As the template's, for the schema. */
  userConfigSchemaPath: string | null;
  /** As the template's, for the identity mapping. */
  identityMappingConfigPath: string | null;
  /** Audit log; only with high assurance. */
  auditLogPath: string | null;
  /** Whether and under which name PAM opens sessions. */
  pam: { enable: boolean; serviceName: string };
  /** How long a start for a running child is remembered. */
  muChildEpGracePeriodMs: number;
  /** Contact. */
  email: string | null;
  /** User ids below this are never mapped to. Ours. @default 1000 */
  minUid: number;
}

/** A user endpoint: an `engine` block. */
export interface UserEndpointConfig extends CommonConfig {
  /** What went wrong, for those who decide by it. */
  kind: "user";
  /** What runs the tasks. */
  engine: EngineConfig;
  /** Silence of a manager after which it counts as lost (the engine's, if it sets its own). */
  heartbeatThresholdMs: number;
  /** Heartbeats with nothing outstanding, once some work was done, before it stops; 0: never. */
  idleHeartbeatsSoft: number;
  /** Heartbeats without any movement before it stops; in force only if soft is above 0. */
  idleHeartbeatsHard: number;
  /** Shell text run before the engine. */
  endpointSetup: string | null;
  /** Shell text run after the engine. */
  endpointTeardown: string | null;
  /** Places other than the usual ones. */
  paths: { endpointDir: string | null; endpointLog: string | null };
  /** The bus. */
  bus: BusConfig;
  /** Tasks stored at most; the rest waits at the broker (invariant 6). Ours. @default 100_000 */
  maxStoredTasks: number;
  /** Bytes of stored tasks at most. Ours. @default 8 GiB */
  maxStoredBytes: number;
}

/** Any configuration. */
export type EndpointConfig = UserEndpointConfig | ManagerEndpointConfig;

/** The bus. Ours; absent in users' files, which means a nats-server of our own. */
export interface BusConfig {
  /** A site's NATS servers (`nats://` or `tls://`); empty: a child nats-server of our own. */
  servers: string[];
  /** NATS credentials file (or nkey seed file) of the endpoint's role at a site's NATS. */
  credentials: string | null;
  /** The same for managers; `null`: as the endpoint. */
  managerCredentials: string | null;
  /** Authority of a site's certificates. */
  caFile: string | null;
  /** TLS for our own server; false switches it off by name. @default true */
  tls: boolean;
  /** Where the store lives; `null`: in the endpoint directory. Node-local disk is best. */
  storeDir: string | null;
  /** Port of our own server; `null`: a free one, kept over restarts. */
  port: number | null;
}

/** Engines that run tasks. */
export type EngineConfig = BlockEngineConfig | PoolEngineConfig;

/** Whether an engine is a pool beside the endpoint, without blocks. */
export function isPool(engine: EngineConfig): engine is PoolEngineConfig {
  return engine.type === "ProcessPoolEngine" || engine.type === "ThreadPoolEngine";
}

/** GlobusComputeEngine and GlobusMPIEngine: managers on blocks. */
export interface BlockEngineConfig {
  /** Which kind this is, by its public name. */
  type: "GlobusComputeEngine" | "GlobusMPIEngine";
  /** Name in logs. */
  label: string;
  /** Where blocks come from. */
  provider: ProviderConfig;
  /** Addresses under which nodes may find the bus; empty: all that can be found. */
  address: AddressConfig | null;
  /** `null`: unbounded. */
  maxWorkersPerNode: number | null;
  /** Cores of a worker; may be a fraction. */
  coresPerWorker: number;
  /** In GB; `null`: memory does not limit. */
  memPerWorker: number | null;
  /** Tasks a manager takes beyond its free workers. */
  prefetchCapacity: number;
  /** How workers are bound to cores. */
  cpuAffinity: string;
  /** Names of devices; empty: none. A number n in the file is "0" to "n-1". */
  availableAccelerators: string[];
  /** Attempts beyond the first after a loss of worker or node. */
  maxRetriesOnSystemFailure: number;
  /** Accepted; the bus has TLS unless `bus.tls` says no. */
  encrypted: boolean;
  /** Whether each task gets a directory of its own. */
  runInSandbox: boolean;
  /** Absolute, or relative to the endpoint directory. */
  workingDir: string;
  /** Class paths and wildcards as written; `null`: all. */
  allowedSerializers: string[] | null;
  /** Not used here. */
  container: ContainerConfig | null;
  /** When blocks are asked for. */
  strategy: StrategyConfig;
  /** Between beats of endpoint and managers. */
  heartbeatPeriodMs: number;
  /** Silence after which the other side counts as lost. */
  heartbeatThresholdMs: number;
  /** Whether managers log everything. */
  workerDebug: boolean;
  /** Age of a manager after which it takes no more tasks; `null`: none. */
  drainPeriodMs: number | null;
  /** Whether a provider whose jobs all fail is a bad state. */
  blockErrorHandler: boolean;
  /** Limit of one address probe by a node. */
  addressProbeTimeoutMs: number;
  /** Where workers' logs go; `null`: the endpoint directory. */
  workerLogdirRoot: string | null;
  /** Interpreter on the nodes. Ours. @default "python3" */
  python: string;
  /** GlobusMPIEngine only. */
  mpi: { launcher: "mpiexec" | "srun" | "aprun"; maxWorkersPerBlock: number } | null;
}

/** ProcessPoolEngine and ThreadPoolEngine: one pool beside the endpoint, no blocks. */
export interface PoolEngineConfig {
  /** Which kind this is, by its public name. */
  type: "ProcessPoolEngine" | "ThreadPoolEngine";
  /** Name in logs. */
  label: string;
  /** Workers of the pool. */
  maxWorkers: number;
  /** Tasks after which a process is replaced; `null`: never. */
  maxTasksPerChild: number | null;
  /** Begins the names of threads. */
  threadNamePrefix: string;
  /** Where tasks run; absolute. */
  workingDir: string;
  /** What may be deserialized; `null`: everything. */
  allowedSerializers: string[] | null;
  /** Interpreter of the workers. */
  python: string;
}

/** How the address is found that nodes are told. */
export type AddressConfig =
  | { type: "literal"; address: string }
  | { type: "address_by_route" | "address_by_hostname" | "get_any_address" }
  | { type: "address_by_query"; timeoutMs: number }
  | { type: "address_by_interface"; ifname: string };

/** A container around the workers of a node. */
export interface ContainerConfig {
  /** Which kind this is, by its public name. */
  type: "docker" | "podman" | "podman-hpc" | "apptainer" | "singularity" | "custom";
  /** Image. */
  uri: string | null;
  /** Options for the runtime; for `custom` the whole command. */
  cmdOptions: string;
}

/** When blocks are asked for and given back. */
export interface StrategyConfig {
  /** Which kind this is, by its public name. */
  type: "none" | "simple" | "htex_auto_scale";
  /** Idle time after which a block may go. */
  maxIdletimeMs: number;
  /** Between two looks at the demand. */
  periodMs: number;
}

/** Keys of every provider. */
export interface ProviderCommon {
  /** Nodes of a block. */
  nodesPerBlock: number;
  /** Blocks at the start. */
  initBlocks: number;
  /** Blocks that always stay. */
  minBlocks: number;
  /** Blocks at most. */
  maxBlocks: number;
  /** Blocks wanted for a task, from 0 to 1. */
  parallelism: number;
  /** The administrator's or user's own shell text. */
  workerInit: string;
  /** Limit of a scheduler's command. */
  cmdTimeoutMs: number;
  /** `null` where there is no launcher (Kubernetes). */
  launcher: LauncherConfig | null;
  /** `null` where the scheduler gives no end. */
  walltimeMs: number | null;
}

/** A provider, with the keys that only it has; these keep their public names. */
export type ProviderConfig =
  | ProviderCommon & { type: "LocalProvider" }
  | ProviderCommon & {
    type: "SlurmProvider";
    partition: string | null;
    account: string | null;
    qos: string | null;
    constraint: string | null;
    clusters: string | null;
    cores_per_node: number | null;
    mem_per_node: number | null;
    gpus_per_node: number | null;
    gres: string | null;
    exclusive: boolean;
    scheduler_options: string;
    regex_job_id: string;
    status_batch_size: number;
  }
  | ProviderCommon & {
    type: "PBSProProvider";
    account: string | null;
    queue: string | null;
    scheduler_options: string;
    select_options: string;
    cpus_per_node: number;
  }
  | ProviderCommon & {
    type: "TorqueProvider";
    account: string | null;
    queue: string | null;
    scheduler_options: string;
  }
  | ProviderCommon & {
    type: "LSFProvider";
    project: string | null;
    queue: string | null;
    cores_per_block: number | null;
    cores_per_node: number | null;
    bsub_redirection: boolean;
    request_by_nodes: boolean;
    scheduler_options: string;
  }
  | ProviderCommon & { type: "GridEngineProvider"; queue: string | null; scheduler_options: string }
  | ProviderCommon & {
    type: "CondorProvider";
    cores_per_slot: number | null;
    mem_per_slot: number | null;
    environment: Record<string, string>;
    project: string;
    requirements: string;
    transfer_input_files: string[];
    scheduler_options: string;
    cmd_chunk_size: number;
  }
  | ProviderCommon & {
    type: "KubernetesProvider";
    image: string;
    namespace: string;
    init_cpu: number;
    max_cpu: number;
    init_mem: string;
    max_mem: string;
    extra_requests: Record<string, string>;
    extra_limits: Record<string, string>;
    pod_name: string | null;
    user_id: string | null;
    group_id: string | null;
    run_as_non_root: boolean;
    secret: string | null;
    persistent_volumes: [claim: string, directory: string][];
    service_account_name: string | null;
    annotations: Record<string, string>;
  };

/** A launcher, with the keys that it takes. */
export interface LauncherConfig {
  /** Which kind this is, by its public name. */
  type:
    | "SimpleLauncher"
    | "SingleNodeLauncher"
    | "WrappedLauncher"
    | "SrunLauncher"
    | "SrunMPILauncher"
    | "AprunLauncher"
    | "JsrunLauncher"
    | "MpiExecLauncher"
    | "MpiRunLauncher"
    | "GnuParallelLauncher";
  /** Whether everything is logged. */
  debug: boolean;
  /** More options for the launcher's command. */
  overrides: string;
  /** WrappedLauncher. */
  prepend: string;
  /** SingleNodeLauncher. */
  failOnAny: boolean;
  /** MpiExecLauncher. */
  bindCmd: string;
  /** MpiRunLauncher. */
  bashLocation: string;
}
