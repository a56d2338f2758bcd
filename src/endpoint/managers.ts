/**
 * The managers that report to this endpoint: which live, which are lost, what they said last.
 *
 * A manager is lost when it has been silent for the threshold, when it said goodbye, or when its block ended. Silence
 * counts only while we ourselves could hear: not while the bus was away, nor while this process was stopped.
 * @module
 */
import { type Logger, monoMs } from "../base/mod.ts";
import type { ManagerReport } from "../bus/mod.ts";

/** A manager as the endpoint knows it. */
export interface KnownManager {
  report: ManagerReport;
  /** Monotonic milliseconds of the last beat. */
  heardMs: number;
  /** Wall clock minus `oldestWaitingMs` at the last beat: no task in its hands arrived before. */
  oldestWaitingMs: number;
}

/** What happened to a manager. */
export interface ManagerEvents {
  /** First report, or the first after it was given up. */
  onJoined(report: ManagerReport): void;
  /** It has a new connection: what was on its way to the old one is lost. */
  onReconnected(report: ManagerReport): void;
  onReport(report: ManagerReport): void;
  onLost(manager: KnownManager, why: string): void;
}

/** Timers that fire later than this were held up with the whole process. */
const DRIFT_MS = 2000;

/** Keeps the list of managers. */
export class Managers {
  readonly #known = new Map<string, KnownManager>();
  readonly #thresholdMs: number;
  readonly #events: ManagerEvents;
  readonly #log: Logger;
  #timer?: number;
  #timerDueMs = 0;
  #deafSinceMs: number | null = null;

  constructor(thresholdMs: number, events: ManagerEvents, options: { log: Logger }) {
    this.#thresholdMs = thresholdMs;
    this.#events = events;
    this.#log = options.log.child("managers");
  }

  get size(): number {
    return this.#known.size;
  }

  /** Last reports of all managers that live. */
  reports(): ManagerReport[] {
    return [...this.#known.values()].map((manager) => manager.report);
  }

  all(): IterableIterator<KnownManager> {
    return this.#known.values();
  }

  has(managerId: string): boolean {
    return this.#known.has(managerId);
  }

  /** A report arrived. */
  heard(report: ManagerReport): void {
    const now = monoMs();
    const known = this.#known.get(report.managerId);
    const oldestWaitingMs = Date.now() - report.oldestWaitingMs;
    this.#known.set(report.managerId, { report, heardMs: now, oldestWaitingMs });
    if (!known) {
      this.#log.info("A manager joined", {
        manager: report.managerId,
        host: report.host,
        block: report.blockId,
        workers: report.workers,
      });
      this.#events.onJoined(report);
    } else if (known.report.connection !== report.connection) {
      this.#events.onReconnected(report);
    }
    this.#events.onReport(report);
    this.#arm();
  }

  /** A manager said goodbye. */
  goodbye(managerId: string, reason: string): void {
    this.#lose(managerId, reason);
  }

  /** The scheduler reports a block as ended. */
  blockEnded(blockId: string, why: string): void {
    for (const [id, { report }] of this.#known) {
      if (report.blockId === blockId) this.#lose(id, why);
    }
  }

  /** The bus is away: silence means nothing until it is back. */
  deaf(): void {
    this.#deafSinceMs ??= monoMs();
    clearTimeout(this.#timer);
    this.#timer = undefined;
  }

  /** The bus is back: everybody has the whole threshold to be heard again. */
  hearing(): void {
    this.#deafSinceMs = null;
    const now = monoMs();
    for (const manager of this.#known.values()) manager.heardMs = now;
    this.#arm();
  }

  stop(): void {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    this.#deafSinceMs = 0;
  }

  #arm(): void {
    if (this.#timer !== undefined || this.#deafSinceMs !== null || this.#known.size === 0) return;
    let oldest = Infinity;
    for (const { heardMs } of this.#known.values()) oldest = Math.min(oldest, heardMs);
    const waitMs = Math.max(50, oldest + this.#thresholdMs - monoMs());
    this.#timerDueMs = monoMs() + waitMs;
    this.#timer = setTimeout(() => this.#expire(), waitMs);
  }

  #expire(): void {
    this.#timer = undefined;
    const now = monoMs();
    if (now - this.#timerDueMs > DRIFT_MS) {
      // we were stopped ourselves; the beats of that time are still in the socket
      for (const manager of this.#known.values()) manager.heardMs = now;
      return this.#arm();
    }
    for (const [id, { heardMs }] of this.#known) {
      const silentMs = now - heardMs;
      if (silentMs >= this.#thresholdMs) {
        this.#lose(id, `not heard of for ${Math.round(silentMs / 1000)} s`);
      }
    }
    this.#arm();
  }

  #lose(managerId: string, why: string): void {
    const manager = this.#known.get(managerId);
    if (!manager) return;
    this.#known.delete(managerId);
    const { host, blockId, running } = manager.report;
    this.#log.info("A manager is gone", {
      manager: managerId,
      host,
      block: blockId,
      why,
      running: running.length,
    });
    this.#events.onLost(manager, why);
  }
}
