/**
 * Makes the streams and consumers of an endpoint, or brings existing ones up to date.
 * @module
 */
import {
  AckPolicy,
  type ConsumerConfig,
  DeliverPolicy,
  DiscardPolicy,
  type JetStreamManager,
  jetstreamManager,
  RetentionPolicy,
  StorageType,
  type StreamConfig,
} from "nats/jetstream";
import type { NatsConnection } from "./link.ts";
import { type BusNames, LANES } from "./names.ts";

/** Bounds of what is stored (invariant 6). */
export interface StreamLimits {
  maxTasks: number;
  maxTaskBytes: number;
  maxResults: number;
  maxResultBytes: number;
  replicas: number;
}

/** The server itself never redelivers: lost deliveries are asked for again by the bridge, which knows more. */
const ACK_WAIT_NS = 30 * 24 * 3600 * 1e9;

/** Makes or updates all streams and consumers. Safe to call at each connection. */
export async function ensureStreams(
  connection: NatsConnection,
  options: { names: BusNames; limits: StreamLimits },
): Promise<JetStreamManager> {
  const { names, limits } = options;
  const manager = await jetstreamManager(connection, { checkAPI: false, timeout: 20_000 });
  await Promise.all([
    ensureStream(manager, {
      ...common(limits),
      name: names.tasks,
      subjects: [`${names.prefix}.task.*.*`],
      retention: RetentionPolicy.Workqueue,
      discard: DiscardPolicy.New,
      discard_new_per_subject: true,
      max_msgs_per_subject: 1,
      max_msgs: limits.maxTasks,
      max_bytes: limits.maxTaskBytes,
    }),
    ensureStream(manager, {
      ...common(limits),
      name: names.starts,
      subjects: [`${names.prefix}.start.*`],
      retention: RetentionPolicy.Workqueue,
      // a release record takes the place of the start record it answers
      discard: DiscardPolicy.Old,
      max_msgs_per_subject: 1,
      max_bytes: 512 * 1024 * 1024,
    }),
    ensureStream(manager, {
      ...common(limits),
      name: names.outbox,
      subjects: [`${names.prefix}.result.*`, `${names.prefix}.answer.*`],
      retention: RetentionPolicy.Workqueue,
      discard: DiscardPolicy.New,
      max_msgs: limits.maxResults,
      max_bytes: limits.maxResultBytes,
    }),
    ensureStream(manager, {
      ...common(limits),
      name: names.ledger,
      subjects: [names.ledgerSubject],
      retention: RetentionPolicy.Limits,
      discard: DiscardPolicy.Old,
      max_bytes: 256 * 1024 * 1024,
    }),
  ]);
  await Promise.all([
    ...LANES.map((lane) =>
      ensureConsumer(manager, names.tasks, {
        durable_name: lane,
        filter_subject: `${names.prefix}.task.${lane}.*`,
        max_waiting: 100_000,
      })
    ),
    ensureConsumer(manager, names.starts, { durable_name: names.bridge, max_waiting: 64 }),
    ensureConsumer(manager, names.outbox, { durable_name: names.bridge, max_waiting: 64 }),
  ]);
  return manager;
}

/**
 * Makes the bridge's consumers anew, so that everything that is stored is delivered to it again: a restarted bridge has
 * forgotten what its predecessor held.
 */
export async function resetBridgeConsumers(
  manager: JetStreamManager,
  names: BusNames,
): Promise<void> {
  await Promise.all([names.starts, names.outbox].map(async (stream) => {
    await manager.consumers.delete(stream, names.bridge);
    await ensureConsumer(manager, stream, { durable_name: names.bridge, max_waiting: 64 });
  }));
}

function common(limits: StreamLimits): Partial<StreamConfig> {
  return {
    storage: StorageType.File,
    num_replicas: limits.replicas,
    allow_direct: true,
    duplicate_window: 100 * 1e6, // never used: the store arbitrates by subject
  };
}

async function ensureStream(
  manager: JetStreamManager,
  config: Partial<StreamConfig> & { name: string },
): Promise<void> {
  try {
    await manager.streams.info(config.name);
  } catch {
    await manager.streams.add(config);
    return;
  }
  await manager.streams.update(config.name, config);
}

async function ensureConsumer(
  manager: JetStreamManager,
  stream: string,
  config: Partial<ConsumerConfig>,
): Promise<void> {
  await manager.consumers.add(stream, {
    ack_policy: AckPolicy.Explicit,
    deliver_policy: DeliverPolicy.All,
    ack_wait: ACK_WAIT_NS,
    max_ack_pending: -1,
    max_deliver: -1,
    ...config,
  });
}
