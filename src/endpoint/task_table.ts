/**
 * What the bridge knows of each task between AMQP's delivery and the removal of its answer. Bounded by what the bus may store.
 * @module
 */
import { DEFAULT_LANE, type StartRecord } from "../bus/mod.ts";

/** One task. */
export interface TaskEntry {
  readonly id: string;
  /** Sequence in TASKS; 0 while it is not known (stored before this process, or being stored). */
  seq: number;
  lane: string;
  /** The last start or release record, and its sequence; `null` if none was seen. */
  start: StartRecord | null;
  startSeq: number;
  /**
   * `storing`: on its way to the bus; `waiting`: stored, not begun; `running`: a manager began it; `answering`: its
   * result is on its way to AMQP.
   */
  state: "storing" | "waiting" | "running" | "answering";
  /** Wall time in milliseconds at which it was given out again, or may have been; 0: it certainly went out once at most. */
  suspectMs: number;
  /** Monotonic milliseconds at which the bridge learned of it. */
  sinceMs: number;
  /**
   * Settles when no store of it is under way. Its answer must not be taken out before: a store that is tried again after
   * a lost connection would put the task back.
   */
  storing: Promise<void> | null;
}

/** Counts of tasks by state. */
export interface TaskCounts {
  storing: number;
  waiting: number;
  running: number;
  answering: number;
}

/** All tasks that are not yet answered for good. */
export class TaskTable {
  readonly #entries = new Map<string, TaskEntry>();
  readonly counts: TaskCounts = { storing: 0, waiting: 0, running: 0, answering: 0 };
  readonly #onChange: () => void;

  /** @param onChange told when counts change; must be cheap */
  constructor(onChange: () => void = () => {}) {
    this.#onChange = onChange;
  }

  get size(): number {
    return this.#entries.size;
  }

  get(id: string): TaskEntry | undefined {
    return this.#entries.get(id);
  }

  values(): IterableIterator<TaskEntry> {
    return this.#entries.values();
  }

  add(id: string, init: Partial<TaskEntry> & Pick<TaskEntry, "state" | "sinceMs">): TaskEntry {
    const entry: TaskEntry = {
      id,
      seq: 0,
      lane: DEFAULT_LANE,
      start: null,
      startSeq: 0,
      suspectMs: 0,
      storing: null,
      ...init,
    };
    this.#entries.set(id, entry);
    this.counts[entry.state]++;
    this.#onChange();
    return entry;
  }

  setState(entry: TaskEntry, state: TaskEntry["state"]): void {
    if (entry.state === state) return;
    this.counts[entry.state]--;
    this.counts[state]++;
    entry.state = state;
    this.#onChange();
  }

  delete(entry: TaskEntry): void {
    if (!this.#entries.delete(entry.id)) return;
    this.counts[entry.state]--;
    this.#onChange();
  }
}
