/**
 * What the endpoint needs of AMQP: one connection that takes tasks, one that publishes.
 * @module
 */

/** A queue as the service's registration answer describes it (protocol.md section 2). */
export interface QueueInfo {
  /** AMQP URL with credentials: never to be logged. */
  connection_url: string;
  /** Exchange; empty for the default one. */
  exchange?: string | null;
  /** Name of the queue. */
  queue: string;
  /** How messages are published, where it is published to. */
  queue_publish_kwargs?: {
    exchange: string;
    routing_key: string;
    mandatory?: boolean;
    properties?: { delivery_mode?: number };
  } | null;
}

/** One message that the broker gave us. */
export interface Delivery {
  /** Valid only on the channel that delivered it. */
  readonly tag: number;
  /** Counts channels of this consumer: a delivery of an older channel can no longer be acknowledged. */
  readonly epoch: number;
  /** The message, untouched. */
  readonly body: Uint8Array;
  /** AMQP headers. */
  readonly headers: Record<string, unknown>;
  /** Whether it was delivered before. */
  readonly redelivered: boolean;
  /** AMQP properties that are used here. */
  readonly properties: { contentType?: string; timestamp?: number; messageId?: string };
}

/** States of a connection that comes back by itself. `refused`: credentials are not accepted; final. */
export type LinkState = "connecting" | "open" | "paused" | "refused" | "closed";

/** Takes messages from one queue, exclusively. Reconnects for ever; old deliveries are forgotten then. */
export interface Consumer {
  /** What it does now. */
  readonly state: LinkState;
  /** Rises with each new channel. */
  readonly epoch: number;
  /** Acknowledges all deliveries of the current channel up to this one. Ignored for an older epoch. */
  ackUpTo(delivery: Pick<Delivery, "tag" | "epoch">): void;
  /** Acknowledges one delivery. Ignored for an older epoch. */
  ack(delivery: Pick<Delivery, "tag" | "epoch">): void;
  /** Gives one delivery back to the queue. Ignored for an older epoch. */
  giveBack(delivery: Pick<Delivery, "tag" | "epoch">): void;
  /**
   * Resolves once the broker has certainly processed every acknowledgement sent before on the channel of
   * `epoch` (a synchronous call on the same channel was answered). @throws if that channel is gone
   */
  fence(epoch: number): Promise<void>;
  /** Stops reading from the broker's socket for the moment: deliveries in hand fill memory. */
  throttle(on: boolean): void;
  /** Stops taking (basic.cancel); deliveries in hand stay valid. */
  pause(): Promise<void>;
  /** Takes again. */
  resume(): Promise<void>;
  /** Ends it for good. */
  close(): Promise<void>;
}

/** A message came back as unroutable (`mandatory`), was nacked, or its channel ended before the confirm. */
export class PublishError extends Error {
  /** Tells this class from others where `instanceof` cannot. */
  override name = "PublishError";
  /** What went wrong, for those who decide by it. */
  readonly kind: "returned" | "nacked" | "closed" | "timeout";

  /** Makes it; nothing happens before its first call. */
  constructor(kind: PublishError["kind"], message: string) {
    super(message);
    this.kind = kind;
  }
}

/** Publishes with confirms. Reconnects for ever. */
export interface Publisher {
  /** What it does now. */
  readonly state: LinkState;
  /**
   * Resolves when the broker confirmed the message and did not return it.
   * @throws {PublishError} otherwise; trying again is the caller's business
   */
  publish(body: Uint8Array, options?: { timeoutMs?: number; contentType?: string }): Promise<void>;
  /** Resolves when the connection is open (again). @throws if credentials are refused for good */
  opened(signal?: AbortSignal): Promise<void>;
  /** Ends it for good. */
  close(): Promise<void>;
}
