/**
 * Takes messages from one queue on a connection of its own that comes back for ever.
 *
 * States: `connecting` -> `open` <-> `paused`, back to `connecting` when the channel or the connection ends, `refused` and
 * `closed` for good.
 * @module
 */
import type { Channel, ChannelModel, ConsumeMessage } from "amqplib";
import { backoffMs, errorText, type Logger, sleep } from "../base/mod.ts";
import { openConnection, RefusedError } from "./connection.ts";
import type { Consumer, Delivery, LinkState, QueueInfo } from "./types.ts";

/** Options of {@linkcode openConsumer}. */
export interface ConsumerOptions {
  /** Read anew before each connection. */
  queueInfo(): Promise<QueueInfo> | QueueInfo;
  /** Deliveries unacknowledged at most; quorum queues cap it at 2,000. */
  prefetch: number;
  /** Whether nobody else may consume the queue. @default true */
  exclusive?: boolean;
  /** Connects, but takes nothing before {@linkcode Consumer.resume}. @default false */
  paused?: boolean;
  /** Shown in the broker's list of connections. */
  name: string;
  /** A message arrived. */
  onDelivery(delivery: Delivery): void;
  /** Deliveries of this epoch and before can no longer be acknowledged. */
  onChannelLost(epoch: number): void;
  /** Told of each change of state, with its reason. */
  onState?(state: LinkState, why: string): void;
  /** Where records go. */
  log: Logger;
}

/** Begins to consume; resolves at once, connecting goes on for ever. */
export function openConsumer(options: ConsumerOptions): Consumer & { opened(): Promise<void> } {
  const consumer = new QueueConsumer(options);
  void consumer.run();
  return consumer;
}

class QueueConsumer implements Consumer {
  readonly #options: ConsumerOptions;
  readonly #log: Logger;
  readonly #end = new AbortController();
  #state: LinkState = "connecting";
  #epoch = 0;
  #connection: ChannelModel | null = null;
  #channel: Channel | null = null;
  #queue = "";
  #tag: string | null = null;
  #paused = false;
  #opened = Promise.withResolvers<void>();
  readonly #finished = Promise.withResolvers<void>();

  constructor(options: ConsumerOptions) {
    this.#options = options;
    this.#log = options.log.child("amqp");
    this.#paused = options.paused ?? false;
    this.#opened.promise.catch(() => {});
  }

  get state(): LinkState {
    return this.#state;
  }

  get epoch(): number {
    return this.#epoch;
  }

  /** Resolves when it consumes. @throws when credentials are refused */
  async opened(): Promise<void> {
    await this.#opened.promise;
  }

  ackUpTo(delivery: Pick<Delivery, "tag" | "epoch">): void {
    this.#onChannel(delivery, (channel) => channel.ack(message(delivery), true));
  }

  ack(delivery: Pick<Delivery, "tag" | "epoch">): void {
    this.#onChannel(delivery, (channel) => channel.ack(message(delivery)));
  }

  giveBack(delivery: Pick<Delivery, "tag" | "epoch">): void {
    this.#onChannel(delivery, (channel) => channel.reject(message(delivery), true));
  }

  async fence(epoch: number): Promise<void> {
    if (!this.#channel || epoch !== this.#epoch) {
      throw new Error("The AMQP channel of these acknowledgements is gone");
    }
    await this.#channel.checkQueue(this.#queue);
  }

  throttle(on: boolean): void {
    // the socket of the connection: amqplib has no other way to slow a broker down
    const stream = (this.#connection as unknown as {
      connection?: { stream?: { pause(): void; resume(): void } };
    } | null)?.connection?.stream;
    if (on) stream?.pause();
    else stream?.resume();
  }

  async pause(): Promise<void> {
    if (this.#paused) return;
    this.#paused = true;
    this.throttle(false);
    const tag = this.#tag;
    this.#tag = null;
    if (this.#channel && tag) {
      this.#setState("paused", "asked for");
      await this.#channel.cancel(tag).catch(() => {});
    }
  }

  async resume(): Promise<void> {
    if (!this.#paused) return;
    this.#paused = false;
    if (this.#channel) await this.#consume(this.#channel, this.#epoch).catch(() => {});
  }

  async close(): Promise<void> {
    this.#end.abort(new Error("The consumer was closed"));
    this.#setState("closed", "asked for");
    this.#opened.reject(this.#end.signal.reason);
    await this.#connection?.close().catch(() => {});
    await this.#finished.promise;
  }

  async run(): Promise<void> {
    const { signal } = this.#end;
    for (let failures = 0; !signal.aborted;) {
      try {
        const lost = await this.#open();
        failures = 0;
        const why = await lost;
        if (signal.aborted) break;
        this.#setState("connecting", why);
        this.#opened = Promise.withResolvers();
        this.#opened.promise.catch(() => {});
      } catch (error) {
        failures++;
        if (error instanceof RefusedError) {
          this.#setState("refused", error.message);
          this.#opened.reject(error);
          break;
        }
        if (failures === 1 || failures % 20 === 0) {
          this.#log.warn("Cannot take tasks yet; trying again", { error: errorText(error) });
        }
      }
      const waitMs = backoffMs(failures + 1, { minMs: 100, maxMs: 10_000 });
      await sleep(waitMs, { signal }).catch(() => {});
    }
    this.#finished.resolve();
  }

  /** @returns a promise of the reason why the channel ended */
  async #open(): Promise<Promise<string>> {
    const info = await this.#options.queueInfo();
    const connection = await openConnection(info.connection_url, { name: this.#options.name });
    try {
      this.#connection = connection;
      this.#queue = info.queue;
      const channel = await connection.createChannel();
      const lost = Promise.withResolvers<string>();
      const epoch = ++this.#epoch;
      const end = (why: string) => {
        if (this.#channel === channel) {
          this.#channel = null;
          this.#tag = null;
          this.#options.onChannelLost(epoch);
        }
        lost.resolve(why);
        // a channel error leaves the connection open; both are made anew
        void connection.close().catch(() => {});
      };
      channel.on("error", (error: Error) => end(error.message));
      channel.on("close", () => end("the channel was closed"));
      connection.on("close", (error?: Error) => end(error?.message ?? "the connection was closed"));
      await channel.checkQueue(info.queue);
      await channel.prefetch(this.#options.prefetch);
      this.#channel = channel;
      if (!this.#paused) await this.#consume(channel, epoch);
      this.#opened.resolve();
      if (this.#end.signal.aborted) end("closed");
      return lost.promise;
    } catch (error) {
      await connection.close().catch(() => {});
      throw error;
    }
  }

  async #consume(channel: Channel, epoch: number): Promise<void> {
    const { exclusive = true, onDelivery } = this.#options;
    const { consumerTag } = await channel.consume(this.#queue, (delivered) => {
      if (delivered === null) {
        // cancelled by the broker: its queue was deleted or moved, or it lost patience
        this.#log.warn("The broker cancelled the consumer; consuming again");
        void channel.close().catch(() => {});
        return;
      }
      try {
        onDelivery(toDelivery(delivered, epoch));
      } catch (error) {
        // a throw in here would close the connection
        this.#log.error("A delivery could not be handled", { error });
      }
    }, { exclusive });
    this.#tag = consumerTag;
    this.#setState("open", "consuming");
  }

  #onChannel(
    delivery: Pick<Delivery, "epoch">,
    act: (channel: Channel) => void,
  ): void {
    if (!this.#channel || delivery.epoch !== this.#epoch) return;
    try {
      act(this.#channel);
    } catch { /* the channel ended this very moment; the delivery comes again */ }
  }

  #setState(state: LinkState, why: string): void {
    if (this.#state === state) return;
    this.#state = state;
    this.#log.info("Tasks connection", { state, why });
    this.#options.onState?.(state, why);
  }
}

function toDelivery(delivered: ConsumeMessage, epoch: number): Delivery {
  const { fields, properties, content } = delivered;
  return {
    tag: fields.deliveryTag,
    epoch,
    body: content,
    headers: properties.headers ?? {},
    redelivered: fields.redelivered,
    properties: {
      contentType: properties.contentType,
      timestamp: properties.timestamp,
      messageId: properties.messageId,
    },
  };
}

/** What amqplib needs of a message to acknowledge it. */
function message(delivery: Pick<Delivery, "tag">): ConsumeMessage {
  return { fields: { deliveryTag: delivery.tag } } as ConsumeMessage;
}
