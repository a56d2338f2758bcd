/**
 * AMQP acknowledgements, held back until what they stand for has reached the disk, and fenced.
 *
 * Deliveries are acknowledged in their order with `multiple`. One may go when it is settled (its task is stored, or it needs
 * no storing) for {@linkcode AckQueueOptions.holdMs}: two sync intervals of the bus (invariant 10). After an
 * acknowledgement, a synchronous call on the same channel tells when the broker has certainly seen it.
 * @module
 */
import { type Logger, monoMs } from "../base/mod.ts";
import type { Consumer, Delivery } from "../amqp/types.ts";

/** One delivery in the queue. */
export interface HeldDelivery {
  readonly tag: number;
  readonly epoch: number;
  /** Task id, or empty if the delivery has none. */
  readonly id: string;
  /** Monotonic milliseconds when it was settled; 0 before. */
  settledMs: number;
  /** Given back to the broker: there is nothing to acknowledge. */
  gone: boolean;
}

/** Options of {@linkcode AckQueue}. */
export interface AckQueueOptions {
  /** How long a settled delivery is held, in milliseconds. */
  holdMs: number;
  log: Logger;
}

/** Acknowledges deliveries late and in order. */
export class AckQueue {
  readonly #consumer: Pick<Consumer, "ackUpTo" | "fence" | "giveBack">;
  readonly #options: AckQueueOptions;
  #queue: HeldDelivery[] = [];
  #head = 0;
  #timer?: number;
  /** Ids of acknowledged deliveries whose acknowledgement may not have arrived. */
  readonly #unfenced = new Set<string>();
  #toFence: { epoch: number; ids: string[] } = { epoch: 0, ids: [] };
  #fencing = false;

  constructor(
    consumer: Pick<Consumer, "ackUpTo" | "fence" | "giveBack">,
    options: AckQueueOptions,
  ) {
    this.#consumer = consumer;
    this.#options = options;
  }

  /** Deliveries not yet acknowledged. */
  get size(): number {
    return this.#queue.length - this.#head;
  }

  /** Ids of tasks that may be delivered again: not acknowledged, or not known to be. */
  *inDoubt(): Iterable<string> {
    for (let i = this.#head; i < this.#queue.length; i++) {
      const { id } = this.#queue[i]!;
      if (id) yield id;
    }
    yield* this.#unfenced;
  }

  /** Puts a delivery in the queue, in the order of arrival. */
  add(delivery: Delivery, id: string): HeldDelivery {
    const held: HeldDelivery = {
      tag: delivery.tag,
      epoch: delivery.epoch,
      id,
      settledMs: 0,
      gone: false,
    };
    this.#queue.push(held);
    return held;
  }

  /** The delivery may be acknowledged, after the hold. */
  settle(held: HeldDelivery): void {
    held.settledMs = monoMs();
    this.#arm();
  }

  /** Gives a delivery back to the broker: it will come again. */
  giveBack(held: HeldDelivery): void {
    if (held.gone) return;
    held.gone = true;
    held.settledMs = monoMs();
    this.#consumer.giveBack(held);
    this.#arm();
  }

  /** The channel of `epoch` and all before are gone: the broker delivers again what was not acknowledged. */
  forget(epoch: number): void {
    const rest = this.#queue.slice(this.#head).filter((held) => held.epoch > epoch);
    for (const held of this.#queue.slice(this.#head)) {
      if (held.epoch <= epoch && held.id && !held.gone) this.#doubt(held.id);
    }
    this.#queue = rest;
    this.#head = 0;
  }

  /** A delivery in doubt came again and will be acknowledged anew. */
  cameAgain(id: string): void {
    this.#unfenced.delete(id);
  }

  /** Acknowledges all that is settled, without waiting for the hold. For the end of a process whose bus has synced. */
  flush(): void {
    this.#acknowledge(Infinity);
  }

  stop(): void {
    clearTimeout(this.#timer);
    this.#timer = undefined;
  }

  #arm(): void {
    if (this.#timer !== undefined) return;
    const first = this.#queue[this.#head];
    if (!first || first.settledMs === 0) return;
    // a little longer than needed gathers more deliveries in one acknowledgement
    const waitMs = Math.max(5, first.settledMs + this.#options.holdMs - monoMs()) + 10;
    this.#timer = setTimeout(() => {
      this.#timer = undefined;
      this.#acknowledge(monoMs() - this.#options.holdMs);
      this.#arm();
    }, waitMs);
  }

  #acknowledge(settledBefore: number): void {
    let last: HeldDelivery | null = null;
    for (; this.#head < this.#queue.length; this.#head++) {
      const held = this.#queue[this.#head]!;
      if (held.settledMs === 0 || held.settledMs > settledBefore) break;
      if (held.gone) continue;
      last = held;
      if (held.id) {
        this.#doubt(held.id);
        if (this.#toFence.epoch !== held.epoch) this.#toFence = { epoch: held.epoch, ids: [] };
        this.#toFence.ids.push(held.id);
      }
    }
    if (this.#head > 1024 && this.#head * 2 > this.#queue.length) {
      this.#queue = this.#queue.slice(this.#head);
      this.#head = 0;
    }
    if (!last) return;
    this.#consumer.ackUpTo(last);
    void this.#fence();
  }

  async #fence(): Promise<void> {
    if (this.#fencing) return;
    this.#fencing = true;
    try {
      while (this.#toFence.ids.length > 0) {
        const { epoch, ids } = this.#toFence;
        this.#toFence = { epoch, ids: [] };
        await this.#consumer.fence(epoch);
        for (const id of ids) this.#unfenced.delete(id);
      }
    } catch (error) {
      // the channel is gone: these ids stay in doubt until they come again
      this.#options.log.debug("Acknowledgements could not be fenced", { error });
    } finally {
      this.#fencing = false;
    }
  }

  #doubt(id: string): void {
    // a set keeps its order of insertion: the oldest doubt goes first
    if (this.#unfenced.size >= 65_536) {
      this.#options.log.warnOnce("doubt", "More than 65,536 acknowledgements are in doubt");
      for (const oldest of this.#unfenced) {
        this.#unfenced.delete(oldest);
        break;
      }
    }
    this.#unfenced.add(id);
  }
}
