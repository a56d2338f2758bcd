/**
 * One zod schema for what a user endpoint's configuration may hold: single configurations with blocks on this host and pools.
 *
 * Keys keep their public names here; load.ts makes the resolved form of them. Schedulers' providers and manager endpoints are
 * refused by name until they are built.
 * @module
 */
import { z } from "zod";

const text = z.union([z.string(), z.number().transform(String)]);
const number = z.union([
  z.number(),
  z.string().regex(/^-?\d+(\.\d+)?$/, "is no number").transform(Number),
]);
const count = number.pipe(z.number().int().min(0));
const uuid = z.string().regex(
  /^[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$/,
  "is no UUID",
);
/** `null` below `engine` means the default. */
const orDefault = <T extends z.ZodType>(type: T, fallback: z.output<T>) =>
  type.nullish().transform((value) => value ?? fallback);
const orNull = <T extends z.ZodType>(type: T) => type.nullish().transform((value) => value ?? null);

/** The launchers that need no scheduler. */
const launcher = z.strictObject({
  type: z.enum(["SimpleLauncher", "SingleNodeLauncher", "WrappedLauncher"]),
  debug: orDefault(z.boolean(), true),
  fail_on_any: orDefault(z.boolean(), false),
  prepend: orDefault(text, ""),
});

const localProvider = z.strictObject({
  type: z.literal("LocalProvider"),
  nodes_per_block: orDefault(count.pipe(z.number().min(1)), 1),
  init_blocks: orDefault(count, 1),
  min_blocks: orDefault(count, 0),
  max_blocks: orDefault(count, 1),
  parallelism: orDefault(number.pipe(z.number().min(0).max(1)), 1),
  worker_init: orDefault(text, ""),
  cmd_timeout: orDefault(number, 30),
  launcher: orNull(launcher),
});

const serializers = orNull(
  z.array(z.string()).min(2, "needs at least one for code and one for data"),
);

const computeEngine = z.strictObject({
  type: z.literal("GlobusComputeEngine"),
  label: orDefault(text, "GlobusComputeEngine"),
  provider: z.unknown().optional(),
  max_workers_per_node: orNull(count.pipe(z.number().min(1))),
  cores_per_worker: orDefault(number, 1),
  mem_per_worker: orNull(number),
  prefetch_capacity: orDefault(count, 0),
  cpu_affinity: orDefault(
    z.string().regex(/^(none|block|block-reverse|alternating|list:[\d,:-]+)$/),
    "none",
  ),
  available_accelerators: orDefault(
    z.union([
      count.transform((n) => Array.from({ length: n }, (_, i) => String(i))),
      z.array(text),
    ]),
    [] as string[],
  ),
  max_retries_on_system_failure: orDefault(count, 0),
  encrypted: orDefault(z.boolean(), true),
  run_in_sandbox: orDefault(z.boolean(), false),
  working_dir: orDefault(text, "tasks_working_dir"),
  allowed_serializers: serializers,
  strategy: orNull(z.union([
    z.string(),
    z.strictObject({ type: z.string(), max_idletime: number.optional() }),
  ])),
  job_status_kwargs: orNull(z.strictObject({
    strategy: z.enum(["none", "simple"]).nullish(),
    max_idletime: number.nullish(),
    strategy_period: number.nullish(),
  })),
  heartbeat_period: orDefault(count, 30),
  heartbeat_threshold: orDefault(count, 120),
  worker_debug: orDefault(z.boolean(), false),
  drain_period: orNull(number),
  python: orDefault(text, "python3"),
});

const pool = {
  label: z.string().nullish(),
  max_workers: orNull(count.pipe(z.number().min(1))),
  allowed_serializers: serializers,
  python: orDefault(text, "python3"),
};

/** Engines by type. */
export const engines = {
  GlobusComputeEngine: computeEngine,
  ProcessPoolEngine: z.strictObject({
    type: z.literal("ProcessPoolEngine"),
    ...pool,
    max_tasks_per_child: orNull(count.pipe(z.number().min(1))),
  }),
  ThreadPoolEngine: z.strictObject({
    type: z.literal("ThreadPoolEngine"),
    ...pool,
    thread_name_prefix: orDefault(text, "worker"),
  }),
};

/** Providers by type. */
export const providers = { LocalProvider: localProvider };

/** A user endpoint's configuration, its engine apart. */
export const userEndpoint = z.strictObject({
  display_name: orNull(text.transform((name) => name === "None" ? null : name)),
  allowed_functions: orNull(z.array(uuid)),
  authentication_policy: orNull(uuid),
  subscription_id: orNull(uuid),
  amqp_port: orNull(number.pipe(z.union([z.literal(443), z.literal(5671), z.literal(5672)]))),
  heartbeat_period: orDefault(number.pipe(z.number().min(5, "must be at least 5 (seconds)")), 30),
  environment: orNull(text),
  local_compute_services: orDefault(z.boolean(), false),
  debug: orDefault(z.boolean(), false),
  admins: orNull(z.array(uuid)),
  engine: z.unknown().optional(),
  heartbeat_threshold: orDefault(number, 120),
  idle_heartbeats_soft: orDefault(count, 0),
  idle_heartbeats_hard: orDefault(count, 5760),
  endpoint_setup: orNull(text),
  endpoint_teardown: orNull(text),
  bus: orNull(z.strictObject({
    servers: orDefault(z.array(z.string()), [] as string[]),
    credentials: orNull(text),
    manager_credentials: orNull(text),
    ca_file: orNull(text),
    tls: orDefault(z.boolean(), true),
    store_dir: orNull(text),
    port: orNull(count),
  })),
  max_stored_tasks: orDefault(count.pipe(z.number().min(1)), 100_000),
  max_stored_bytes: orDefault(count.pipe(z.number().min(1024 * 1024)), 8 * 2 ** 30),
});
