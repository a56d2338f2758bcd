/**
 * From the bus to AMQP: checks that a result is its sender's to give, publishes it, and takes away what it answers.
 *
 * Order (invariant 2, and so that a crash at any point loses and repeats nothing): AMQP has confirmed and not returned the
 * result; the ledger has the id; the task is gone from TASKS; then its start record and the result go.
 * @module
 */
import { backoffMs, errorText, type Logger, monoMs, sleep } from "../base/mod.ts";
import { type Publisher, PublishError } from "../amqp/types.ts";
import {
  BusError,
  type EndpointBus,
  hashSecret,
  type StartRecord,
  type StoredResult,
} from "../bus/mod.ts";
import type { Ledger } from "./ledger.ts";
import type { TaskEntry, TaskTable } from "./task_table.ts";

/** Options of {@linkcode Outlet}. */
export interface OutletOptions {
  bus: EndpointBus;
  publisher: Publisher;
  ledger: Ledger;
  table: TaskTable;
  /**
   * What a task ran on failed. @returns true if another attempt was allowed, false if `result` is the answer
   */
  onSystemFailure(entry: TaskEntry, why: string): Promise<boolean>;
  /** A task was answered for good. `ok` is unknown here: results are not parsed. */
  onAnswered(entry: TaskEntry): void;
  /** Whether the start record of an answered task must stay for now. */
  keepStart(entry: TaskEntry): boolean;
  log: Logger;
}

/** Counts for `status`. */
export interface OutletCounts {
  /** Results that AMQP confirmed. */
  published: number;
  /** Tries that failed: returned, nacked, or the connection was lost. */
  failedPublishes: number;
  /** Results of managers that had been given up, or that came twice. */
  dropped: number;
}

/** How long a result waits for the start record that was stored before it. */
const START_WAIT_MS = 500;

/** Brings results to AMQP. */
export class Outlet {
  readonly counts: OutletCounts = { published: 0, failedPublishes: 0, dropped: 0 };
  readonly #options: OutletOptions;
  readonly #log: Logger;
  /** Results on their way, by task. */
  readonly #active = new Map<string, { seq: number; work: Promise<void> }>();
  /** Results that arrived before their start record. */
  readonly #awaited = new Map<string, () => void>();
  /** Hashes of the secrets of managers; bounded by their number. */
  readonly #hashes = new Map<string, string>();
  #stopped = false;

  constructor(options: OutletOptions) {
    this.#options = options;
    this.#log = options.log.child("outlet");
  }

  /** Results in hand. */
  get active(): number {
    return this.#active.size;
  }

  /** Takes one result. Never throws. */
  take(result: StoredResult): void {
    const { taskId, seq } = result;
    const active = this.#active.get(taskId);
    // after a reconnect the bus delivers again what is in hand
    if (active?.seq === seq) return;
    const answered = this.#options.ledger.has(taskId) && !this.#options.table.get(taskId);
    if (active || answered) return this.#drop(result);
    const work = this.#handle(result)
      .catch((error) => {
        // the bus is away, or we stop: the result stays stored and is delivered again
        if (!(error instanceof BusError) && !this.#stopped) {
          this.#log.error("A result could not be handled", { task: taskId, error });
        }
      })
      .finally(() => this.#active.delete(taskId));
    this.#active.set(taskId, { seq, work });
  }

  /** A start record was stored; a result may wait for it. */
  startSeen(taskId: string): void {
    this.#awaited.get(taskId)?.();
  }

  /** Waits until no result is in hand. */
  async settled(): Promise<void> {
    while (this.#active.size > 0) {
      await Promise.all([...this.#active.values()].map(({ work }) => work));
    }
  }

  /** Gives up retrying; what is unfinished stays in the outbox. */
  stop(): void {
    this.#stopped = true;
  }

  async #handle(result: StoredResult): Promise<void> {
    const { table, bus, ledger } = this.#options;
    const entry = table.get(result.taskId) ??
      table.add(result.taskId, { state: "answering", sinceMs: monoMs() });
    // answered, but a crash or a lost connection came before the task was taken away
    if (ledger.has(entry.id)) return await this.#remove(entry, result);
    if (!result.own) {
      const start = await this.#startOf(entry);
      if (!start || !(await this.#mayAnswer(start, result))) {
        this.#log.warn("A result was dropped: its sender had not, or no longer, the task", {
          task: entry.id,
          manager: start?.manager,
        });
        if (!start && entry.seq === 0) await this.#forgetUnknown(entry);
        return this.#drop(result);
      }
      if (result.systemFailure !== null) {
        if (await this.#options.onSystemFailure(entry, result.systemFailure)) {
          return bus.removeResult(result.seq);
        }
      }
    }
    table.setState(entry, "answering");
    await this.#publish(result);
    await ledger.add(entry.id);
    await this.#remove(entry, result);
    this.#options.onAnswered(entry);
  }

  /** A result for a task that nobody knows: if it is not stored either, it was answered long ago. */
  async #forgetUnknown(entry: TaskEntry): Promise<void> {
    const found = await this.#options.bus.findTask(entry.id);
    if (!found) return this.#options.table.delete(entry);
    entry.seq = found.seq;
    entry.lane = found.lane;
    this.#options.table.setState(entry, "waiting");
  }

  async #startOf(entry: TaskEntry): Promise<StartRecord | null> {
    if (entry.start) return entry.start;
    const { promise, resolve } = Promise.withResolvers<void>();
    const timer = setTimeout(resolve, START_WAIT_MS);
    this.#awaited.set(entry.id, resolve);
    await promise;
    clearTimeout(timer);
    this.#awaited.delete(entry.id);
    if (!entry.start) {
      const last = await this.#options.bus.lastStart(entry.id);
      if (last) {
        entry.start = last.record;
        entry.startSeq = last.seq;
      }
    }
    return entry.start;
  }

  async #mayAnswer(start: StartRecord, result: StoredResult): Promise<boolean> {
    if (start.released || start.attempt !== result.attempt) return false;
    let hash = this.#hashes.get(result.secret);
    if (hash === undefined) {
      hash = await hashSecret(result.secret);
      if (this.#hashes.size > 10_000) this.#hashes.clear();
      if (hash === start.secretHash) this.#hashes.set(result.secret, hash);
    }
    return hash === start.secretHash;
  }

  async #publish(result: StoredResult): Promise<void> {
    const { publisher } = this.#options;
    for (let failures = 1;; failures++) {
      try {
        await publisher.publish(result.body);
        this.counts.published++;
        return;
      } catch (error) {
        if (this.#stopped || !(error instanceof PublishError)) throw error;
        this.counts.failedPublishes++;
        if (error.kind === "returned") {
          this.#log.warnOnce("returned", "The broker returns results as unroutable; trying on", {
            error: errorText(error),
          });
        }
        await publisher.opened();
        await sleep(backoffMs(failures, { minMs: 100, maxMs: 10_000 }));
        if (this.#stopped) throw error;
      }
    }
  }

  async #remove(entry: TaskEntry, result: StoredResult): Promise<void> {
    const { bus, table, keepStart } = this.#options;
    await entry.storing;
    // an acknowledgement counts only for what this server process knows that it gave out
    if (result.own || entry.suspectMs > 0) await this.#deleteTask(entry);
    else await this.#ackTask(entry);
    if (entry.startSeq > 0 && !keepStart(entry)) bus.removeStart(entry.startSeq);
    bus.removeResult(result.seq);
    table.delete(entry);
  }

  async #ackTask(entry: TaskEntry): Promise<void> {
    const { bus } = this.#options;
    if (entry.seq === 0) {
      // stored before this process: the start record's word for its sequence is a manager's, so the store is asked
      const found = await bus.findTask(entry.id);
      if (!found) return;
      entry.seq = found.seq;
      entry.lane = found.lane;
    }
    bus.removeTask(entry.lane, entry.seq);
  }

  /** For tasks that no manager was given, that were never stored, or that may be given out again. */
  async #deleteTask(entry: TaskEntry): Promise<void> {
    const { bus } = this.#options;
    if (entry.seq === 0) {
      const found = await bus.findTask(entry.id);
      if (!found) return;
      entry.seq = found.seq;
    }
    await bus.deleteTask(entry.seq);
  }

  #drop(result: StoredResult): void {
    this.counts.dropped++;
    this.#options.bus.removeResult(result.seq);
  }
}
