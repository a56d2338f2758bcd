/**
 * Publishes with confirms on a connection of its own that comes back for ever.
 *
 * A message counts as published when the broker confirmed it and did not return it: an unroutable `mandatory` message is first
 * returned and then confirmed.
 * @module
 */
import { Buffer } from "node:buffer";
import type { ChannelModel, ConfirmChannel, Message } from "amqplib";
import { backoffMs, errorText, type Logger, monoMs, sleep } from "../base/mod.ts";
import { openConnection, RefusedError } from "./connection.ts";
import { type LinkState, type Publisher, PublishError, type QueueInfo } from "./types.ts";

/** Where and how messages of one kind are published. */
export interface PublishTarget {
  /** Exchange; empty for the default one. */
  exchange: string;
  /** Routing key; the queue's name at the default exchange. */
  routingKey: string;
  /** Whether the broker returns what it cannot route. */
  mandatory: boolean;
  /** Whether the broker writes it to disk. */
  persistent: boolean;
}

/** Beside a message's body. */
export interface PublishOptions {
  contentType?: string;
  headers?: Record<string, unknown>;
  /** Seconds since the epoch. */
  timestamp?: number;
  /** @default where the queue's description says */
  target?: PublishTarget;
}

/** Options of {@linkcode openPublisher}. */
export interface PublisherOptions {
  /** Read anew before each connection. */
  queueInfo(): Promise<QueueInfo> | QueueInfo;
  /** Shown in the broker's list of connections. */
  name: string;
  /** How long a confirm may take, in milliseconds; then the connection is made anew. @default 30_000 */
  confirmMs?: number;
  /** Told of each change of state, with its reason. */
  onState?(state: LinkState, why: string): void;
  /** Where records go. */
  log: Logger;
}

interface Unconfirmed {
  id: string;
  bytes: number;
  sinceMs: number;
  resolve(): void;
  reject(error: PublishError): void;
}

/** Messages unconfirmed at most; further ones wait. */
const WINDOW = 4096;
/** Bytes unconfirmed at most; a single message may be larger. */
const WINDOW_BYTES = 64 * 1024 * 1024;

/** Begins to connect; resolves at once, connecting goes on for ever. */
export function openPublisher(options: PublisherOptions): QueuePublisher {
  const publisher = new QueuePublisher(options);
  void publisher.run();
  return publisher;
}

/** A {@linkcode Publisher} that can also publish to other targets on the same connection. */
export class QueuePublisher implements Publisher {
  readonly #options: PublisherOptions;
  readonly #log: Logger;
  readonly #end = new AbortController();
  readonly #finished = Promise.withResolvers<void>();
  #state: LinkState = "connecting";
  #connection: ChannelModel | null = null;
  #channel: ConfirmChannel | null = null;
  #target: PublishTarget | null = null;
  #opened = Promise.withResolvers<void>();
  #unconfirmed = new Map<string, Unconfirmed>();
  #bytes = 0;
  #counter = 0;
  #waiting: (() => void)[] = [];
  #sweep?: number;

  /** Makes it; nothing happens before its first call. */
  constructor(options: PublisherOptions) {
    this.#options = options;
    this.#log = options.log.child("amqp");
    this.#opened.promise.catch(() => {});
  }

  /** What it does now. */
  get state(): LinkState {
    return this.#state;
  }

  /** Resolves when it is open (again). @throws if it is closed for good */
  async opened(signal?: AbortSignal): Promise<void> {
    signal?.throwIfAborted();
    await this.#opened.promise;
  }

  /** Publishes; resolves when confirmed and not returned. @throws {PublishError} */
  publish(body: Uint8Array, options: PublishOptions = {}): Promise<void> {
    const full = this.#unconfirmed.size >= WINDOW ||
      (this.#bytes + body.length > WINDOW_BYTES && this.#bytes > 0);
    return full ? this.#publishLater(body, options) : this.#publishNow(body, options);
  }

  /** Ends it for good. */
  async close(): Promise<void> {
    this.#end.abort(new Error("The publisher was closed"));
    this.#setState("closed", "asked for");
    this.#opened.reject(this.#end.signal.reason);
    clearInterval(this.#sweep);
    await this.#connection?.close().catch(() => {});
    await this.#finished.promise;
  }

  /** Connects, and connects again, until it is closed. */
  async run(): Promise<void> {
    const { signal } = this.#end;
    for (let failures = 0; !signal.aborted;) {
      try {
        const lost = await this.#open();
        failures = 0;
        const why = await lost;
        if (signal.aborted) break;
        this.#opened = Promise.withResolvers();
        this.#opened.promise.catch(() => {});
        this.#setState("connecting", why);
      } catch (error) {
        failures++;
        if (error instanceof RefusedError) {
          this.#setState("refused", error.message);
          this.#opened.reject(error);
          break;
        }
        if (failures === 1 || failures % 20 === 0) {
          this.#log.warn("Cannot send results yet; trying again", { error: errorText(error) });
        }
      }
      const waitMs = backoffMs(failures + 1, { minMs: 100, maxMs: 10_000 });
      await sleep(waitMs, { signal }).catch(() => {});
    }
    this.#finished.resolve();
  }

  async #publishLater(body: Uint8Array, options: PublishOptions): Promise<void> {
    await new Promise<void>((resolve) => this.#waiting.push(resolve));
    return await this.publish(body, options);
  }

  #publishNow(body: Uint8Array, options: PublishOptions): Promise<void> {
    const channel = this.#channel;
    const target = options.target ?? this.#target;
    if (!channel || !target) {
      return Promise.reject(new PublishError("closed", "There is no connection to the broker now"));
    }
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    const id = (this.#counter++).toString(36);
    const entry = { id, bytes: body.length, sinceMs: monoMs(), resolve, reject };
    this.#unconfirmed.set(id, entry);
    this.#bytes += body.length;
    this.#sweep ??= setInterval(() => this.#expire(), 1000);
    try {
      channel.publish(target.exchange, target.routingKey, asBuffer(body), {
        mandatory: target.mandatory,
        deliveryMode: target.persistent ? 2 : 1,
        messageId: id,
        contentType: options.contentType,
        headers: options.headers,
        timestamp: options.timestamp,
      }, (error) => this.#settle(id, error ? new PublishError("nacked", errorText(error)) : null));
    } catch (error) {
      this.#settle(id, new PublishError("closed", errorText(error)));
    }
    return promise;
  }

  #settle(id: string, error: PublishError | null): void {
    const entry = this.#unconfirmed.get(id);
    if (!entry) return;
    this.#unconfirmed.delete(id);
    this.#bytes -= entry.bytes;
    if (error) entry.reject(error);
    else entry.resolve();
    this.#waiting.shift()?.();
  }

  #onReturn(message: Message): void {
    const id = message.properties.messageId;
    const text = (message.fields as { replyText?: string }).replyText ?? "unroutable";
    if (typeof id === "string") {
      this.#settle(id, new PublishError("returned", `The broker returned the message: ${text}`));
    }
  }

  #expire(): void {
    if (this.#unconfirmed.size === 0) {
      clearInterval(this.#sweep);
      this.#sweep = undefined;
      return;
    }
    const [oldest] = this.#unconfirmed.values();
    if (monoMs() - oldest!.sinceMs < (this.#options.confirmMs ?? 30_000)) return;
    this.#log.warn("The broker has confirmed nothing for too long; connecting anew");
    this.#failAll(new PublishError("timeout", "The broker did not confirm the message in time"));
    void this.#connection?.close().catch(() => {});
  }

  #failAll(error: PublishError): void {
    for (const id of [...this.#unconfirmed.keys()]) this.#settle(id, error);
    for (const wake of this.#waiting.splice(0)) wake();
  }

  async #open(): Promise<Promise<string>> {
    const info = await this.#options.queueInfo();
    const connection = await openConnection(info.connection_url, { name: this.#options.name });
    try {
      const channel = await connection.createConfirmChannel();
      const lost = Promise.withResolvers<string>();
      const end = (why: string) => {
        if (this.#channel === channel) {
          this.#channel = null;
          this.#failAll(new PublishError("closed", `The connection to the broker ended: ${why}`));
        }
        lost.resolve(why);
        void connection.close().catch(() => {});
      };
      channel.on("error", (error: Error) => end(error.message));
      channel.on("close", () => end("the channel was closed"));
      connection.on("close", (error?: Error) => end(error?.message ?? "the connection was closed"));
      channel.on("return", (message: Message) => this.#onReturn(message));
      const target = targetOf(info);
      if (target.exchange) await channel.checkExchange(target.exchange);
      if (info.queue) await channel.checkQueue(info.queue);
      this.#connection = connection;
      this.#channel = channel;
      this.#target = target;
      this.#setState("open", "connected");
      this.#opened.resolve();
      if (this.#end.signal.aborted) end("closed");
      return lost.promise;
    } catch (error) {
      await connection.close().catch(() => {});
      throw error;
    }
  }

  #setState(state: LinkState, why: string): void {
    if (this.#state === state) return;
    this.#state = state;
    this.#log.info("Results connection", { state, why });
    this.#options.onState?.(state, why);
  }
}

/** Where a registration answer says that messages go. */
export function targetOf(info: QueueInfo): PublishTarget {
  const given = info.queue_publish_kwargs;
  return {
    exchange: given?.exchange ?? info.exchange ?? "",
    routingKey: given?.routing_key ?? info.queue,
    mandatory: given?.mandatory ?? true,
    persistent: (given?.properties?.delivery_mode ?? 2) === 2,
  };
}

function asBuffer(bytes: Uint8Array): Buffer {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}
