/**
 * The service's side of AMQP: queues of endpoints and task groups, tasks out, results and heartbeats in.
 * @module
 */
import type { Channel, ChannelModel } from "amqplib";
import { type Logger, retry, wallMs } from "../base/mod.ts";
import {
  type Consumer,
  type Delivery,
  openConnection,
  openConsumer,
  openPublisher,
  PublishError,
  type QueueInfo,
  type QueuePublisher,
} from "../amqp/mod.ts";
import { decodeMessage } from "../compute/mod.ts";
import type { Store } from "./store.ts";

const RESULTS = "compute.results";
const HEARTBEATS = "compute.heartbeats";
/** Results that nobody fetched go with their queue after so long without a consumer. */
const GROUP_QUEUE_EXPIRES_MS = 30 * 60_000;

/** Prefix of the queues that the SDK consumes. */
export const GROUP_PREFIX = "compute.group.";

/** Owns the connections to the broker. */
export class Broker {
  readonly #url: string;
  readonly #store: Store;
  readonly #log: Logger;
  readonly #groups = new Set<string>();
  #setup: Promise<{ connection: ChannelModel; channel: Channel }> | null = null;
  #publisher!: QueuePublisher;
  #consumers: Consumer[] = [];
  #finished: { delivery: Delivery; consumer: Consumer }[] = [];
  #timer?: number;

  /** Makes it; nothing happens before its first call. */
  constructor(options: { url: string; store: Store; log: Logger }) {
    this.#url = options.url;
    this.#store = options.store;
    this.#log = options.log.child("broker");
  }

  /** AMQP URL with credentials: never to be logged. */
  get url(): string {
    return this.#url;
  }

  /** Makes what all endpoints share, connects. */
  async start(): Promise<void> {
    await this.#withChannel(async (channel) => {
      for (const name of [RESULTS, HEARTBEATS]) {
        await channel.assertExchange(name, "topic", { durable: true });
        await channel.assertQueue(name, { durable: true });
        await channel.bindQueue(name, name, "#");
      }
    });
    const queueInfo = () => ({ connection_url: this.#url, queue: RESULTS, exchange: RESULTS });
    const log = this.#log;
    this.#publisher = openPublisher({ queueInfo, name: "compute service", log });
    this.#consume(RESULTS, (delivery, consumer) => {
      this.#finished.push({ delivery, consumer });
      this.#timer ??= setTimeout(() => void this.#finish(), 5);
    });
    this.#consume(HEARTBEATS, (delivery, consumer) => {
      this.#heartbeat(delivery);
      consumer.ack(delivery);
    });
    await this.#publisher.opened();
  }

  /** Closes all connections. */
  async stop(): Promise<void> {
    clearTimeout(this.#timer);
    await Promise.all([...this.#consumers, this.#publisher].map((part) => part?.close()));
    const setup = await this.#setup?.catch(() => null);
    await setup?.connection.close().catch(() => {});
  }

  /** Makes an endpoint's task queue and says how it reaches all its queues. */
  async endpointQueues(endpointId: string): Promise<Record<string, QueueInfo>> {
    const tasks = `${endpointId}.tasks`;
    await this.#withChannel((channel) => channel.assertQueue(tasks, { durable: true }));
    const publishTo = (exchange: string, kind: string): QueueInfo => ({
      connection_url: this.#url,
      exchange,
      queue: exchange,
      queue_publish_kwargs: {
        exchange,
        routing_key: `${endpointId}.${kind}`,
        mandatory: true,
        properties: { delivery_mode: 2 },
      },
    });
    return {
      task_queue_info: { connection_url: this.#url, exchange: "", queue: tasks },
      result_queue_info: publishTo(RESULTS, "results"),
      heartbeat_queue_info: publishTo(HEARTBEATS, "heartbeats"),
    };
  }

  /** Removes an endpoint's task queue and what waits in it. */
  async deleteEndpointQueues(endpointId: string): Promise<void> {
    await this.#withChannel((channel) => channel.deleteQueue(`${endpointId}.tasks`));
  }

  /** Makes the queue from which an SDK takes the results of a task group. */
  async groupQueue(group: string): Promise<void> {
    if (this.#groups.has(group)) return;
    const options = { durable: true, expires: GROUP_QUEUE_EXPIRES_MS };
    await this.#withChannel((channel) => channel.assertQueue(GROUP_PREFIX + group, options));
    if (this.#groups.size > 10_000) this.#groups.clear();
    this.#groups.add(group);
  }

  /** Puts a task into its endpoint's queue; resolves when the broker has it. @throws {PublishError} */
  sendTask(
    endpointId: string,
    options: { body: Uint8Array; headers: Record<string, unknown> },
  ): Promise<void> {
    return this.#publisher.publish(options.body, {
      headers: options.headers,
      target: {
        exchange: "",
        routingKey: `${endpointId}.tasks`,
        mandatory: true,
        persistent: true,
      },
    });
  }

  #consume(queue: string, onDelivery: (delivery: Delivery, consumer: Consumer) => void): void {
    const consumer: Consumer = openConsumer({
      queueInfo: () => ({ connection_url: this.#url, queue }),
      prefetch: 1000,
      exclusive: false,
      name: `compute service, ${queue}`,
      onDelivery: (delivery) => onDelivery(delivery, consumer),
      onChannelLost: () => {},
      log: this.#log,
    });
    this.#consumers.push(consumer);
  }

  /** Stores gathered results in one transaction, passes them on to task groups, then acknowledges them. */
  async #finish(): Promise<void> {
    this.#timer = undefined;
    const batch = this.#finished;
    this.#finished = [];
    const firsts: { body: Uint8Array; group: string }[] = [];
    try {
      this.#store.transaction(() => {
        for (const { delivery } of batch) {
          const group = this.#storeResult(delivery.body);
          if (group) firsts.push({ body: delivery.body, group });
        }
      });
      await Promise.all(firsts.map(({ body, group }) => this.#toGroup(body, group)));
      for (const { delivery, consumer } of batch) consumer.ack(delivery);
    } catch (error) {
      this.#log.error("Results could not be stored; they come again", { error });
      for (const { delivery, consumer } of batch) consumer.giveBack(delivery);
    }
  }

  /** @returns the task group that waits for it, if any */
  #storeResult(body: Uint8Array): string | null {
    let data: Record<string, unknown>;
    try {
      const message = decodeMessage(body);
      if (message.type !== "result") return null;
      data = message.data;
    } catch (error) {
      this.#log.warn("A result could not be read and was dropped", { error });
      return null;
    }
    const id = String(data.task_id).toLowerCase();
    const task = this.#store.task(id);
    if (!task) return null;
    const failed = data.error_details !== undefined && data.error_details !== null;
    this.#store.finishTask(id, {
      status: failed ? "failed" : "success",
      result: failed ? null : String(data.data),
      exception: failed ? String(data.data) : null,
      details: JSON.stringify(data.details ?? {}),
    });
    // a result that comes again may not have reached its group; the SDK takes the first only
    return task.deliver ? task.task_group : null;
  }

  async #toGroup(body: Uint8Array, group: string): Promise<void> {
    const target = {
      exchange: "",
      routingKey: GROUP_PREFIX + group,
      mandatory: true,
      persistent: true,
    };
    try {
      await this.#publisher.publish(body, { target, timestamp: Math.floor(wallMs() / 1000) });
    } catch (error) {
      // the queue expired: nobody waits; the result can still be asked for by REST
      if (!(error instanceof PublishError) || error.kind !== "returned") throw error;
      this.#groups.delete(group);
    }
  }

  #heartbeat(delivery: Delivery): void {
    try {
      const { type, data } = decodeMessage(delivery.body);
      if (type !== "ep_status_report") return;
      const state = (data.global_state ?? data.ep_status_report ?? {}) as Record<string, unknown>;
      const period = Number(state.heartbeat_period ?? 30);
      const active = state.active !== false && period > 0;
      const until = active ? wallMs() + 3 * period * 1000 : 0;
      this.#store.reportEndpoint(String(data.endpoint_id), JSON.stringify(state), until);
    } catch (error) {
      this.#log.warnOnce("heartbeat", "A status report could not be read", { error });
    }
  }

  async #withChannel<T>(work: (channel: Channel) => Promise<T>): Promise<T> {
    return await retry(async () => {
      this.#setup ??= this.#openSetup();
      try {
        const { channel } = await this.#setup;
        return await work(channel);
      } catch (error) {
        this.#setup = null;
        throw error;
      }
    }, { attempts: 5, minMs: 100, maxMs: 2000 });
  }

  async #openSetup(): Promise<{ connection: ChannelModel; channel: Channel }> {
    const connection = await openConnection(this.#url, { name: "compute service, setup" });
    const channel = await connection.createChannel();
    const forget = () => this.#setup = null;
    channel.on("error", forget);
    channel.on("close", forget);
    return { connection, channel };
  }
}
