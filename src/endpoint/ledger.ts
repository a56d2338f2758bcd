/**
 * "Have I answered this task?": ids of answered tasks, in the bus and in memory, for AMQP deliveries that come again.
 *
 * Bounded: two generations of {@linkcode GENERATION} ids. When a third would begin, the oldest is dropped, but for ids whose
 * AMQP acknowledgement is not known to have arrived; these are written again.
 * @module
 */
import { backoffMs, type Logger, sleep } from "../base/mod.ts";
import type { EndpointBus } from "../bus/mod.ts";
import { BusError } from "../bus/mod.ts";
import { IdSet, packIds, unpackIds } from "./id_set.ts";

/** Ids of a generation; twice as many are remembered at most, beside unfenced ones. */
const GENERATION = 65_536;
/** How long ids are gathered before they are written together; a crash in that time sends their results twice. */
const GATHER_MS = 4;
/** Written together at most. */
const BATCH = 256;

interface Generation {
  ids: IdSet;
  /** Sequence of its first entry in the bus. */
  firstSeq: number;
}

/** Remembers which tasks were answered. */
export class Ledger {
  readonly #bus: EndpointBus;
  readonly #log: Logger;
  /** Whether a task's AMQP acknowledgement is still in doubt. */
  readonly #inDoubt: () => Iterable<string>;
  #old: Generation | null = null;
  #young: Generation = { ids: new IdSet(), firstSeq: 0 };
  #gathering: string[] = [];
  #gathered = Promise.withResolvers<void>();
  #timer?: number;
  #stopped = false;

  /** @param inDoubt ids whose AMQP acknowledgement is not known to have arrived */
  constructor(bus: EndpointBus, options: { log: Logger; inDoubt: () => Iterable<string> }) {
    this.#bus = bus;
    this.#log = options.log.child("ledger");
    this.#inDoubt = options.inDoubt;
  }

  /** Ids remembered. */
  get size(): number {
    return this.#young.ids.size + (this.#old?.ids.size ?? 0);
  }

  has(id: string): boolean {
    return this.#young.ids.has(id) || (this.#old?.ids.has(id) ?? false);
  }

  /** Reads what the bus holds. */
  async load(): Promise<void> {
    for await (const { seq, ids } of this.#bus.readLedger()) {
      for (const id of unpackIds(ids)) this.#remember(id, seq);
    }
  }

  /**
   * Writes an id down; resolves when the bus has stored it.
   */
  add(id: string): Promise<void> {
    this.#gathering.push(id);
    const { promise } = this.#gathered;
    if (this.#gathering.length >= BATCH) this.#flush();
    else this.#timer ??= setTimeout(() => this.#flush(), GATHER_MS);
    return promise;
  }

  /** Writes what is gathered; nothing more is accepted. */
  stop(): void {
    this.#flush();
    this.#stopped = true;
  }

  #flush(): void {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    if (this.#gathering.length === 0) return;
    const ids = this.#gathering;
    const gathered = this.#gathered;
    this.#gathering = [];
    this.#gathered = Promise.withResolvers();
    void this.#write(ids).then(gathered.resolve, gathered.reject);
  }

  async #write(ids: string[]): Promise<void> {
    const packed = packIds(ids);
    for (let failures = 1;; failures++) {
      try {
        const seq = await this.#bus.appendLedger(packed);
        for (const id of ids) this.#remember(id, seq);
        return;
      } catch (error) {
        if (!(error instanceof BusError) || this.#stopped) throw error;
        await sleep(backoffMs(failures, { minMs: 50, maxMs: 2000 }));
      }
    }
  }

  #remember(id: string, seq: number): void {
    if (this.#young.ids.size >= GENERATION) this.#nextGeneration(seq);
    if (this.#young.firstSeq === 0) this.#young.firstSeq = seq;
    this.#young.ids.add(id);
  }

  #nextGeneration(seq: number): void {
    const dropped = this.#old;
    this.#old = this.#young;
    this.#young = { ids: new IdSet(), firstSeq: seq };
    if (!dropped) return;
    const keep = [...this.#inDoubt()].filter((id) => dropped.ids.has(id) && !this.has(id));
    void this.#drop(keep, this.#old.firstSeq - 1);
  }

  async #drop(keep: string[], upTo: number): Promise<void> {
    try {
      if (keep.length > 0) await this.#write(keep);
      await this.#bus.purgeLedger(upTo);
    } catch (error) {
      this.#log.warn("Old entries of the ledger could not be dropped; they are at the next turn", {
        error,
      });
    }
  }
}
