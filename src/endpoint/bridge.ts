/**
 * The bridge of a user endpoint: AMQP -> bus -> managers -> bus -> AMQP, whole under the death of any process.
 *
 * It owns the task table and decides what starts, losses and results mean; the parts do the work: intake.ts (tasks in),
 * outlet.ts (results out), managers.ts (who lives), ledger.ts (what was answered), ack_queue.ts (acknowledging late).
 * States: `idle` -> `running` -> `draining` -> `stopped`.
 * A long file: what a start, a result or a loss means is decided here and nowhere else.
 * @module
 */
import { backoffMs, errorText, type Logger, monoMs, sleep, wallMs } from "../base/mod.ts";
import type { Consumer, Delivery, Publisher } from "../amqp/types.ts";
import {
  BusError,
  type EndpointBus,
  type EndpointBusEvents,
  type ManagerReport,
  PRIORITY_LANES,
  type StartRecord,
} from "../bus/mod.ts";
import { encodeErrorResult, type ErrorCode } from "../compute/mod.ts";
import { AckQueue } from "./ack_queue.ts";
import { Intake, type SpecificationCheck } from "./intake.ts";
import { Ledger } from "./ledger.ts";
import { type KnownManager, Managers } from "./managers.ts";
import { Outlet } from "./outlet.ts";
import { type TaskEntry, TaskTable } from "./task_table.ts";

/** Options of {@linkcode Bridge}. */
export interface BridgeOptions {
  endpointId: string;
  maxStoredTasks: number;
  allowedFunctions: string[] | null;
  /** Attempts beyond the first after a failure of what a task ran on (invariant 3). */
  maxRetries: number;
  managerThresholdMs: number;
  checkSpecification: SpecificationCheck;
  /** How long an AMQP acknowledgement is held after its task was stored. @default 500 */
  ackHoldMs?: number;
  /** Told when numbers of waiting or running tasks changed; gathered. */
  onDemand?(demand: { waiting: number; running: number }): void;
  onReport?(report: ManagerReport): void;
  onManagerLost?(managerId: string, why: string): void;
  log: Logger;
}

/** What the bridge is connected to; made by the caller with the handlers of {@linkcode Bridge}. */
export interface BridgeLinks {
  bus: EndpointBus;
  consumer: Consumer;
  publisher: Publisher;
}

/** Numbers for `status` and heartbeats. */
export interface BridgeCounts {
  received: number;
  stored: number;
  duplicates: number;
  refused: number;
  waiting: number;
  running: number;
  answering: number;
  answered: number;
  dropped: number;
  retried: number;
  lost: number;
  unacknowledged: number;
}

/** Delay before tasks that were perhaps lost on the way are given out again. */
const REDELIVER_AFTER_MS = 300;
/** How often it is looked for tasks that wait while workers are idle. */
const WATCH_MS = 10_000;
/** Distance between clocks of this host and the nodes that is allowed for. */
const CLOCK_SLACK_MS = 60_000;

/** The bridge. */
export class Bridge {
  readonly #options: BridgeOptions;
  readonly #log: Logger;
  readonly #table = new TaskTable(() => this.#demandChanged());
  readonly #managers: Managers;
  /** Tasks that each manager began, by manager id. */
  readonly #begun = new Map<string, Set<TaskEntry>>();
  /** Start records of answered tasks that stay until no manager can hold an old copy: sequence by id. */
  readonly #tombstones = new Map<string, { startSeq: number; suspectMs: number }>();
  #links!: BridgeLinks;
  #acks!: AckQueue;
  #ledger!: Ledger;
  #intake!: Intake;
  #outlet!: Outlet;
  #state: "idle" | "running" | "draining" | "stopped" = "idle";
  #allowed = false;
  #answered = 0;
  #retried = 0;
  #lost = 0;
  #refuseAll: string | null = null;
  #redeliverTimer?: number;
  #watchTimer?: number;
  #demandTimer?: number;
  #priorityLanes = "";
  /** Wall time since which the present server process may have given tasks out twice. */
  #serverSinceMs = 0;

  constructor(options: BridgeOptions) {
    this.#options = options;
    this.#log = options.log.child("bridge");
    this.#managers = new Managers(options.managerThresholdMs, {
      onJoined: (report) => this.#allow(report.managerId),
      onReconnected: (report) => {
        this.#allow(report.managerId);
        this.#redeliverSoon();
      },
      onReport: (report) => {
        this.#clearTombstones();
        this.#options.onReport?.(report);
      },
      onLost: (manager, why) => this.#onManagerLost(manager, why),
    }, { log: options.log });
  }

  get state(): string {
    return this.#state;
  }

  /** What the bus tells; to be given to `openBus`. */
  readonly busEvents: EndpointBusEvents = {
    onOpen: ({ sameServer }) => {
      if (!sameServer) this.#suspectAll();
      if (this.#state !== "idle") void this.#recover(sameServer);
    },
    onLost: () => {
      this.#allowed = false;
      this.#managers.deaf();
    },
    onStart: (taskId, record, seq) => this.#onStart(taskId, record, seq),
    onResult: (result) => this.#outlet.take(result),
    onReport: (report) => {
      const news = report.server === "" || !this.#managers.has(report.managerId);
      this.#managers.heard(report);
      if (news) this.#allow(report.managerId);
    },
    onGiveBack: (_, seqs) => this.#giveOutAgain(new Set(seqs)),
    onTickets: (seqs) => seqs.forEach((seq) => this.#links.bus.removeTicket(seq)),
    onGoodbye: (managerId, reason) => this.#managers.goodbye(managerId, reason),
  };

  /** Takes one AMQP delivery; to be given to the consumer. */
  take(delivery: Delivery): void {
    this.#intake.take(delivery);
  }

  /** A channel ended: its deliveries can no longer be acknowledged and will come again. */
  channelLost(epoch: number): void {
    this.#acks.forget(epoch);
  }

  /** Prepares the parts. To be called before deliveries or bus events can arrive. */
  connect(links: BridgeLinks): void {
    this.#links = links;
    const { bus, consumer, publisher } = links;
    const { log, endpointId, allowedFunctions, checkSpecification } = this.#options;
    const table = this.#table;
    this.#acks = new AckQueue(consumer, { holdMs: this.#options.ackHoldMs ?? 500, log });
    this.#ledger = new Ledger(bus, { log, inDoubt: () => this.#acks.inDoubt() });
    const ledger = this.#ledger;
    this.#outlet = new Outlet({
      bus,
      publisher,
      ledger,
      table,
      onSystemFailure: (entry, why) => this.#retry(entry, why),
      onAnswered: (entry) => this.#onAnswered(entry),
      keepStart: (entry) => this.#keepStart(entry),
      log,
    });
    this.#intake = new Intake({
      endpointId,
      bus,
      consumer,
      acks: this.#acks,
      ledger,
      table,
      allowedFunctions: allowedFunctions && new Set(allowedFunctions.map((id) => id.toLowerCase())),
      checkSpecification,
      onCancel: (taskId) => this.cancel(taskId, "it was cancelled by its submitter"),
      onStored: (entry) => this.#onStored(entry),
      refuseAll: () => this.#refuseAll,
      log,
    });
  }

  /** Reads what the bus holds, then lets managers work. Resolves when both are done. */
  async start(): Promise<void> {
    this.#state = "running";
    await this.#recover(false);
    this.#watchTimer = setInterval(() => void this.#watch(), WATCH_MS);
  }

  /** Numbers of now. */
  counts(): BridgeCounts {
    const { waiting, running, answering } = this.#table.counts;
    const { received, stored, duplicates, refused } = this.#intake.counts;
    return {
      received,
      stored,
      duplicates,
      refused,
      waiting,
      running,
      answering,
      answered: this.#answered,
      dropped: this.#outlet.counts.dropped,
      retried: this.#retried,
      lost: this.#lost,
      unacknowledged: this.#acks.size,
    };
  }

  /** Last reports of the managers that live. */
  managers(): ManagerReport[] {
    return this.#managers.reports();
  }

  /** Why no tasks are taken from AMQP now; `null` if they are. */
  get paused(): string | null {
    return this.#intake.paused;
  }

  /** The scheduler says that a block is over. */
  blockEnded(blockId: string, why: string): void {
    this.#managers.blockEnded(blockId, why);
  }

  /**
   * No block can be had: answers all waiting tasks, and every new one, with this error until called with `null`.
   * @param text what the submitter is told, with the scheduler's own words
   */
  async refuse(text: string | null): Promise<void> {
    this.#refuseAll = text;
    if (text === null) return;
    const waiting = [...this.#table.values()].filter((entry) => entry.state === "waiting");
    await Promise.all(waiting.map((entry) => this.#answerUnbegun(entry, "ManagerLost", text)));
  }

  /** Ends a waiting or running task; it is answered with an error. */
  async cancel(taskId: string, why: string): Promise<void> {
    const entry = this.#table.get(taskId);
    if (!entry || entry.state === "answering") return;
    if (entry.state === "waiting") {
      const text = `The task was cancelled before it began: ${why}`;
      if (await this.#answerUnbegun(entry, "TaskCancelled", text)) return;
    }
    const manager = entry.start?.manager;
    if (manager) this.#links.bus.command(manager, { t: "cancel", taskId });
  }

  /** Answers every task that runs with an error that says why (`stop`). */
  async answerRunning(why: string): Promise<void> {
    this.#links.bus.command("all", { t: "drain", kill: true, reason: why });
    const running = [...this.#table.values()].filter((entry) => entry.state === "running");
    await Promise.all(running.map((entry) => this.#answerLost(entry, why)));
  }

  /** Stops taking tasks, brings out the results that are here, acknowledges what is due. Bounded by `limitMs`. */
  async drain(limitMs = 5000): Promise<void> {
    if (this.#state !== "running") return;
    this.#state = "draining";
    this.#intake.stop();
    await this.#links.consumer.pause().catch(() => {});
    const until = monoMs() + limitMs;
    await Promise.race([this.#outlet.settled(), sleep(limitMs)]);
    while ((this.#intake.storing > 0 || this.#acks.size > 0) && monoMs() < until) await sleep(20);
  }

  /** Ends all activity of the bridge. What is unfinished stays stored. */
  stop(): void {
    if (this.#state === "stopped") return;
    this.#state = "stopped";
    this.#intake.stop();
    this.#outlet.stop();
    this.#acks.stop();
    this.#ledger.stop();
    this.#managers.stop();
    clearTimeout(this.#redeliverTimer);
    clearTimeout(this.#demandTimer);
    clearInterval(this.#watchTimer);
  }

  /** After each connection to the bus: what was stored, what was answered; then managers may take tasks. */
  async #recover(sameServer: boolean): Promise<void> {
    for (let failures = 1; this.#state === "running"; failures++) {
      try {
        if (!sameServer) await this.#recoverServer();
        this.#links.bus.consume();
        this.#allowed = true;
        this.#managers.hearing();
        this.#links.bus.allow("all");
        this.#announcePriority(true);
        this.#links.bus.command("all", { t: "report" });
        return;
      } catch (error) {
        if (error instanceof BusError && error.kind === "lost") return;
        this.#log.warn("What the bus holds could not be read; trying again", { error });
        await sleep(backoffMs(failures, { maxMs: 5000 }));
      }
    }
  }

  /** A new server process may have forgotten what it gave out, and give it out again. */
  #suspectAll(): void {
    this.#serverSinceMs = Math.floor(wallMs());
    for (const entry of this.#table.values()) entry.suspectMs = this.#serverSinceMs;
  }

  async #recoverServer(): Promise<void> {
    const { bus } = this.#links;
    if (this.#ledger.size === 0) await this.#ledger.load();
    let leftovers = 0;
    let known = 0;
    for (const { taskId, lane } of await bus.storedTasks()) {
      if (this.#table.get(taskId)) continue;
      if (this.#ledger.has(taskId)) {
        // answered, and its removal was lost with a crash
        const found = await bus.findTask(taskId);
        if (found) await bus.deleteTask(found.seq);
        leftovers++;
        continue;
      }
      known++;
      this.#table.add(taskId, {
        lane,
        state: "waiting",
        sinceMs: monoMs(),
        suspectMs: this.#serverSinceMs,
      });
    }
    if (known + leftovers > 0) {
      this.#log.info("Found tasks in the bus", { tasks: known, answeredAlready: leftovers });
    }
  }

  #allow(managerId: string): void {
    if (!this.#allowed || this.#state !== "running") return;
    this.#links.bus.allow(managerId);
    if (this.#priorityLanes) this.#announcePriority(true);
  }

  #onStored(entry: TaskEntry): void {
    if ((PRIORITY_LANES as readonly string[]).includes(entry.lane)) {
      void this.#links.bus.storeTicket(entry.id).catch(() => {});
      this.#announcePriority(false);
    }
  }

  /** Tells managers which priority lanes hold waiting tasks, when that changed. */
  #announcePriority(always: boolean): void {
    const lanes = new Set<string>();
    if (this.#priorityLanes || !always) {
      for (const entry of this.#table.values()) {
        if (entry.lane !== "default" && (entry.state === "waiting" || entry.state === "storing")) {
          lanes.add(entry.lane);
        }
      }
    }
    const sorted = [...lanes].sort();
    if (!always && sorted.join() === this.#priorityLanes) return;
    this.#priorityLanes = sorted.join();
    this.#links.bus.command("all", { t: "priority", lanes: sorted });
  }

  #onStart(taskId: string, record: StartRecord, seq: number): void {
    const entry = this.#table.get(taskId);
    if (!entry) {
      // answered already; the record goes unless an old copy of the task may be about
      if (this.#ledger.has(taskId) && !this.#tombstones.has(taskId)) {
        this.#links.bus.removeStart(seq);
      }
      return;
    }
    if (entry.startSeq >= seq) return;
    if (entry.start) this.#begun.get(entry.start.manager)?.delete(entry);
    entry.start = record;
    entry.startSeq = seq;
    if (record.released) {
      if (entry.state === "running") this.#table.setState(entry, "waiting");
    } else {
      if (entry.state !== "answering") this.#table.setState(entry, "running");
      let begun = this.#begun.get(record.manager);
      if (!begun) this.#begun.set(record.manager, begun = new Set());
      begun.add(entry);
      if (entry.lane !== "default") this.#announcePriority(false);
    }
    this.#outlet.startSeen(taskId);
  }

  #onAnswered(entry: TaskEntry): void {
    this.#answered++;
    if (entry.start) this.#begun.get(entry.start.manager)?.delete(entry);
    const { storing, waiting, running, answering } = this.#table.counts;
    this.#intake.roomAgain(storing + waiting + running + answering, this.#options.maxStoredTasks);
  }

  #onManagerLost(manager: KnownManager, why: string): void {
    const { managerId, host } = manager.report;
    this.#options.onManagerLost?.(managerId, why);
    const begun = [...this.#begun.get(managerId) ?? []];
    this.#begun.delete(managerId);
    const given: string[] = [];
    for (const entry of begun) {
      if (entry.state !== "running") continue;
      given.push(entry.id);
      this.#lost++;
      void this.#loseTask(entry, `the manager on node ${host} was lost: ${why}`);
    }
    if (given.length > 0) {
      this.#links.bus.command(managerId, { t: "given-away", taskIds: given });
    }
    this.#redeliverSoon();
  }

  /** A task that had begun lost what it ran on. */
  async #loseTask(entry: TaskEntry, why: string): Promise<void> {
    try {
      if (!(await this.#retry(entry, why))) await this.#answerLost(entry, why);
    } catch (error) {
      this.#log.error("A lost task could not be dealt with; the watch comes back to it", {
        task: entry.id,
        error,
      });
    }
  }

  /** Allows another attempt if any is left. @returns whether it did */
  async #retry(entry: TaskEntry, why: string): Promise<boolean> {
    const { start } = entry;
    if (!start || start.attempt > this.#options.maxRetries) return false;
    const { bus } = this.#links;
    const seq = await bus.release(entry.id, {
      startSeq: entry.startSeq,
      attempt: start.attempt,
      taskSeq: start.taskSeq,
    });
    this.#retried++;
    this.#log.info("A task gets another attempt", { task: entry.id, after: start.attempt, why });
    this.#begun.get(start.manager)?.delete(entry);
    if (entry.startSeq < seq) {
      entry.start = { ...start, manager: "", secretHash: "", released: true };
      entry.startSeq = seq;
    }
    entry.suspectMs = Math.floor(wallMs());
    this.#table.setState(entry, "waiting");
    await this.#redeliver([entry]);
    return true;
  }

  async #answerLost(entry: TaskEntry, why: string): Promise<void> {
    const attempts = entry.start?.attempt ?? 1;
    const times = attempts === 1 ? "" : ` (attempt ${attempts})`;
    await this.#answer(
      entry,
      "ManagerLost",
      `The task had begun${times} and its result is lost: ${why}. It is not run again by itself; ` +
        "max_retries_on_system_failure in the endpoint's engine allows that",
    );
  }

  /** Answers a task that nobody began. @returns false if somebody was faster */
  async #answerUnbegun(entry: TaskEntry, code: ErrorCode, text: string): Promise<boolean> {
    try {
      if (entry.start === null) {
        entry.startSeq = await this.#links.bus.claim(entry.id, entry.seq);
      }
    } catch (error) {
      if (error instanceof BusError && error.wrongLastSequence) return false;
      throw error;
    }
    await this.#answer(entry, code, text);
    return true;
  }

  async #answer(entry: TaskEntry, code: ErrorCode, text: string): Promise<void> {
    const body = encodeErrorResult({ taskId: entry.id, code, text });
    for (let failures = 1;; failures++) {
      try {
        return await this.#links.bus.storeAnswer(entry.id, body);
      } catch (error) {
        if (!(error instanceof BusError) || this.#state === "stopped") throw error;
        await this.#links.bus.opened();
        await sleep(backoffMs(failures, { minMs: 50, maxMs: 5000 }));
      }
    }
  }

  /** Something may have been lost on its way to a manager. */
  #redeliverSoon(): void {
    this.#redeliverTimer ??= setTimeout(() => {
      this.#redeliverTimer = undefined;
      this.#giveOutAgain(null);
    }, REDELIVER_AFTER_MS);
  }

  /** Has waiting tasks delivered again that were delivered before. @param seqs only these; `null` for all */
  #giveOutAgain(seqs: Set<number> | null): void {
    const entries = [...this.#table.values()].filter((entry) =>
      entry.state === "waiting" && (seqs === null || seqs.has(entry.seq))
    );
    void this.#redeliver(entries).catch((error) => {
      this.#log.warn("Tasks could not be given out again; the watch tries again", {
        error: errorText(error),
      });
    });
  }

  async #redeliver(entries: TaskEntry[]): Promise<void> {
    const { bus } = this.#links;
    const lanes = new Map<string, TaskEntry[]>();
    for (const entry of entries) {
      if (entry.seq === 0) {
        const found = await bus.findTask(entry.id);
        if (!found) continue;
        entry.seq = found.seq;
        entry.lane = found.lane;
      }
      const lane = lanes.get(entry.lane);
      if (lane) lane.push(entry);
      else lanes.set(entry.lane, [entry]);
    }
    const again = new Map<string, number[]>();
    for (const [lane, waiting] of lanes) {
      const { lastDelivered } = await bus.untaken(lane);
      const out = waiting.filter((entry) => entry.seq <= lastDelivered);
      for (const entry of out) entry.suspectMs = Math.floor(wallMs());
      if (out.length > 0) again.set(lane, out.map((entry) => entry.seq));
    }
    if (again.size > 0) await bus.redeliver(again);
  }

  /** The last net: tasks wait, workers are idle, and nothing is on its way. */
  async #watch(): Promise<void> {
    try {
      await this.#watchOnce();
    } catch (error) {
      this.#log.debug("The watch could not look", { error });
    }
  }

  async #watchOnce(): Promise<void> {
    const { bus } = this.#links;
    if (!this.#allowed || !bus.connected) return;
    for (const entry of this.#table.values()) {
      if (entry.state !== "running" || monoMs() - entry.sinceMs < 2 * WATCH_MS) continue;
      const manager = entry.start!.manager;
      const seenMs = entry.start!.atMs;
      // begun by a manager that nobody knows (any more): it never reports again
      const overdue = Date.now() - seenMs > this.#options.managerThresholdMs + WATCH_MS &&
        monoMs() - entry.sinceMs > this.#options.managerThresholdMs + WATCH_MS;
      if (manager && !this.#managers.has(manager) && overdue) {
        void this.#loseTask(entry, "the manager that began it has not been heard of since");
      }
    }
    const idle = this.managers().some((report) =>
      report.idleWorkers > 0 && report.waiting === 0 && !report.draining && report.idleMs > 2000
    );
    if (!idle || this.#table.counts.waiting === 0) return;
    const stuck = [...this.#table.values()].filter((entry) =>
      entry.state === "waiting" && monoMs() - entry.sinceMs > WATCH_MS
    );
    if (stuck.length === 0) return;
    await this.#redeliver(stuck);
    for (const entry of stuck) {
      if (entry.lane !== "default") await bus.storeTicket(entry.id);
    }
  }

  /** Whether an answered task's start record has to stay: an old copy of the task may lie in some manager's hands. */
  #keepStart(entry: TaskEntry): boolean {
    if (entry.suspectMs === 0) return false;
    const holders = [...this.#managers.all()].some(({ oldestWaitingMs, report }) =>
      report.waiting > 0 && oldestWaitingMs < entry.suspectMs + CLOCK_SLACK_MS
    );
    if (!holders) return false;
    this.#tombstones.set(entry.id, { startSeq: entry.startSeq, suspectMs: entry.suspectMs });
    return true;
  }

  #clearTombstones(): void {
    if (this.#tombstones.size === 0) return;
    let oldest = Infinity;
    for (const { oldestWaitingMs, report } of this.#managers.all()) {
      if (report.waiting > 0) oldest = Math.min(oldest, oldestWaitingMs);
    }
    for (const [id, { startSeq, suspectMs }] of this.#tombstones) {
      if (oldest < suspectMs + CLOCK_SLACK_MS) continue;
      this.#tombstones.delete(id);
      this.#links.bus.removeStart(startSeq);
    }
  }

  #demandChanged(): void {
    if (!this.#options.onDemand) return;
    this.#demandTimer ??= setTimeout(() => {
      this.#demandTimer = undefined;
      const { waiting, running } = this.#table.counts;
      this.#options.onDemand?.({ waiting, running });
    }, 50);
  }
}
