/**
 * A manager: takes tasks from the bus as workers are free, runs them, gives results.
 *
 * States: `starting` -> `running` -> `draining` (takes no more, finishes what runs) -> `stopped`. The order of draining is:
 * stop taking, give back what has not begun, finish or end what runs, bring out results, goodbye.
 * A long file: the state of a manager and every change of it are to be read in one place.
 * @module
 */
import {
  bootId,
  errorText,
  type Logger,
  monoMs,
  sleep,
  VERSION,
  wallMs,
  wallNs,
} from "../base/mod.ts";
import type {
  ManagerBus,
  ManagerBusEvents,
  ManagerCommand,
  ManagerReport,
  TaskDelivery,
} from "../bus/mod.ts";
import { encodeErrorResult, type ErrorCode } from "../compute/mod.ts";
import type { Frame } from "./frames.ts";
import type { ManagerConfig } from "./manager_config.ts";
import { Nursery, type Worker, type WorkerEnd } from "./nursery.ts";
import { makeSlots, type NodeResources, nodeResources, type Slot, workerCount } from "./slots.ts";

/** Options of {@linkcode Manager}. */
export interface ManagerOptions {
  /** As configured. */
  config: ManagerConfig;
  /** Id of the manager, unique for each start. */
  managerId: string;
  /** Id of the block. */
  blockId: string;
  /** Connects to the bus; a fake in tests. */
  connect(events: ManagerBusEvents): Promise<ManagerBus & { readonly secretHash: string }>;
  /** Where records go. */
  log: Logger;
}

/** A task in hand. */
interface Held {
  task: TaskDelivery;
  arrivedMs: number;
  arrivedNs: bigint;
}

/** A task that a worker runs. */
interface Running extends Held {
  attempt: number;
  begunNs: bigint;
  sentMs: number;
  slot: number;
  /** How its worker's death is to be answered: `cancel` as cancelled, `drop` not at all. */
  ending: null | { how: "cancel" | "drop"; why: string };
}

/** A worker slot and who sits in it. */
interface Seat {
  slot: Slot;
  worker: Worker | null;
  running: Map<string, Running>;
  /** Tasks that its present process has done. */
  done: number;
  /** Deaths in a row without a task done: a broken interpreter must not be started for ever. */
  deaths: number;
}

/** Asked for once: it is in the details of every result. */
const HOST = Deno.hostname();
/** Bytes of results not yet stored, above which no more tasks are taken. */
const UNSTORED_BYTES = 64 * 1024 * 1024;
/** A manager that has had no bus and no task for so long ends. */
const ALONE_LIMIT_MS = 30 * 60_000;
/** Changes are reported together after so long. */
const REPORT_SOON_MS = 100;

/** Runs tasks on one node. */
export class Manager {
  readonly #config: ManagerConfig;
  readonly #options: ManagerOptions;
  readonly #log: Logger;
  readonly #node: NodeResources;
  readonly #seats: Seat[];
  readonly #nursery: Nursery;
  readonly #waiting: Held[] = [];
  /** Tasks between `begin` and the store's answer. */
  readonly #beginning = new Set<Held>();
  readonly #free: Seat[] = [];
  readonly #startedMs = wallMs();
  readonly #ended = Promise.withResolvers<string>();
  #bus!: ManagerBus & { readonly secretHash: string };
  #state: "starting" | "running" | "draining" | "stopped" = "starting";
  #room = 0;
  #unstored = 0;
  #unstoredBytes = 0;
  #connection = 0;
  #tasksDone = 0;
  #idleSinceMs = monoMs();
  #lastBusMs = monoMs();
  #paused = false;
  #beat?: number;
  #soon?: number;
  #drainTimer?: number;
  readonly #threads: number;

  /** Makes it; nothing happens before its first call. */
  constructor(options: ManagerOptions) {
    this.#options = options;
    this.#config = options.config;
    this.#log = options.log.child("manager");
    this.#node = nodeResources();
    const { config, managerId, blockId } = options;
    const count = workerCount(config, this.#node);
    this.#threads = config.workerKind === "threads" ? count : 1;
    this.#seats = makeSlots(config, {
      node: this.#node,
      count: config.workerKind === "threads" ? 1 : count,
      managerId,
      blockId,
    }).map((slot) => ({ slot, worker: null, running: new Map(), done: 0, deaths: 0 }));
    this.#nursery = new Nursery(config, {
      onReady: (worker) => this.#onReady(worker),
      onFrame: (worker, frame) => this.#onFrame(worker, frame),
      onEnd: (end) => this.#onWorkerEnd(end),
      onNurseryEnd: (why) => this.#onNurseryEnd(why),
    }, { logDir: `${config.logDir}/${managerId}`, log: options.log });
  }

  /** Resolves with the reason when the manager has ended. */
  get ended(): Promise<string> {
    return this.#ended.promise;
  }

  /** Workers on this node. */
  get workers(): number {
    return this.#config.workerKind === "threads" ? this.#threads : this.#seats.length;
  }

  /** Starts workers, connects. @throws if the interpreter cannot serve */
  async start(): Promise<void> {
    await this.#nursery.start();
    this.#bus = await this.#options.connect({
      onTask: (task) => this.#onTask(task),
      onCommand: (command) => this.#onCommand(command),
      onConnected: (connection) => {
        this.#connection = connection;
        this.#lastBusMs = monoMs();
        this.report();
      },
      onDisconnected: () => this.#lastBusMs = monoMs(),
    });
    this.#state = "running";
    for (const seat of this.#seats) await this.#nursery.fork(seat.slot, this.#threads);
    this.#giveRoom(this.#config.prefetch);
    this.#beat = setInterval(() => this.#onBeat(), this.#config.heartbeatPeriodMs);
    const lifeMs = Math.min(
      this.#config.drainPeriodMs ?? Infinity,
      // results need time to leave before the scheduler ends the job
      (this.#config.walltimeMs ?? Infinity) - 30_000,
    );
    if (lifeMs < 2 ** 31) {
      this.#drainTimer = setTimeout(() => void this.drain("its time is over"), Math.max(0, lifeMs));
    }
  }

  /** Takes no more, finishes what runs (or ends it, if `kill`), brings out results, ends. */
  async drain(reason: string, options: { kill?: boolean } = {}): Promise<void> {
    if (this.#state === "stopped") return;
    const first = this.#state !== "draining";
    this.#state = "draining";
    if (first) {
      this.#log.info("Draining", { reason });
      await this.#bus.stopTaking();
      this.#bus.giveBack(this.#waiting.splice(0).map((held) => held.task));
      this.report();
    }
    if (options.kill) {
      for (const seat of this.#seats) {
        for (const running of seat.running.values()) {
          running.ending ??= { how: "cancel", why: reason };
          this.#endWorker(seat);
        }
      }
    }
    if (!first) return;
    while (this.#runningCount() > 0 || this.#beginning.size > 0 || this.#unstored > 0) {
      await sleep(25);
    }
    await this.#stop(reason);
  }

  /** Reports to the endpoint now. */
  report(): void {
    const { config, managerId, blockId } = this.#options;
    const running = this.#seats.flatMap((seat) => [...seat.running.values()]);
    const oldest = [...this.#waiting, ...this.#beginning].reduce(
      (earliest, held) => Math.min(earliest, held.arrivedMs),
      monoMs(),
    );
    const waiting = this.#waiting.length + this.#beginning.size;
    const report: ManagerReport = {
      managerId,
      secretHash: this.#bus.secretHash,
      blockId,
      jobId: Deno.env.get("SLURM_JOB_ID") ?? Deno.env.get("PBS_JOBID") ?? null,
      host: HOST,
      pid: Deno.pid,
      bootId: bootId(),
      version: VERSION,
      pythonVersion: this.#nursery.facts?.python ?? null,
      dillVersion: this.#nursery.facts?.dill ?? null,
      startedMs: Math.floor(this.#startedMs),
      endsAtMs: config.walltimeMs === null ? null : Math.floor(this.#startedMs + config.walltimeMs),
      workers: this.workers,
      idleWorkers: this.#freeWorkers(),
      prefetch: config.prefetch,
      waiting,
      oldestWaitingMs: waiting === 0 ? 0 : Math.ceil(monoMs() - oldest),
      running: running.map(({ task, attempt, slot, begunNs }) => ({
        taskId: task.taskId,
        seq: task.seq,
        attempt,
        startedMs: Number(begunNs / 1_000_000n),
        worker: slot,
      })),
      idleMs: running.length + waiting > 0 ? 0 : Math.floor(monoMs() - this.#idleSinceMs),
      draining: this.#state === "draining",
      tasksDone: this.#tasksDone,
      coreCount: this.#node.cores.length,
      memoryGb: this.#node.memoryGb,
      accelerators: config.availableAccelerators.length,
      connection: this.#connection,
    };
    this.#bus.report(report);
  }

  #freeWorkers(): number {
    if (this.#config.workerKind === "threads") return this.#threads - this.#runningCount();
    return this.#free.length;
  }

  #runningCount(): number {
    return this.#seats.reduce((sum, seat) => sum + seat.running.size, 0);
  }

  #onBeat(): void {
    if (this.#bus.connected) this.#lastBusMs = monoMs();
    else if (monoMs() - this.#lastBusMs > ALONE_LIMIT_MS && this.#runningCount() === 0) {
      void this.drain("its endpoint's bus has been away for 30 minutes");
    }
    this.report();
  }

  #reportSoon(): void {
    this.#soon ??= setTimeout(() => {
      this.#soon = undefined;
      if (this.#state !== "stopped") this.report();
    }, REPORT_SOON_MS);
  }

  /** Room is given at once when a worker is free, unless results pile up here. */
  #giveRoom(tasks: number): void {
    this.#room += tasks;
    const piled = this.#unstoredBytes > UNSTORED_BYTES || this.#unstored > 4 * this.workers + 64;
    if (this.#state !== "running" || piled || this.#paused || this.#room === 0) return;
    const room = this.#room;
    this.#room = 0;
    this.#bus.addRoom(room);
  }

  #onTask(task: TaskDelivery): void {
    const held: Held = { task, arrivedMs: monoMs(), arrivedNs: wallNs() };
    if (this.#state !== "running") return this.#bus.giveBack([task]);
    this.#waiting.push(held);
    this.#dispatch();
  }

  /** Brings waiting tasks and free workers together. */
  #dispatch(): void {
    while (this.#waiting.length > 0 && this.#free.length > 0) {
      const seat = this.#free.pop()!;
      const held = this.#waiting.shift()!;
      void this.#begin(held, seat).catch((error) => {
        this.#log.error("A task could not be begun", { task: held.task.taskId, error });
      });
    }
  }

  async #begin(held: Held, seat: Seat): Promise<void> {
    const { task } = held;
    this.#beginning.add(held);
    let attempt: number | null;
    try {
      attempt = await this.#bus.begin(task, seat.slot.index);
    } finally {
      this.#beginning.delete(held);
    }
    if (attempt === null || !seat.worker) {
      if (attempt === null) this.#log.debug("Not ours to run", { task: task.taskId });
      else this.#fail({ ...held, attempt }, "WorkerLost", "the worker ended before the task began");
      if (seat.worker) this.#free.push(seat);
      this.#giveRoom(1);
      return this.#dispatch();
    }
    const running: Running = {
      ...held,
      attempt,
      begunNs: wallNs(),
      sentMs: monoMs(),
      slot: seat.slot.index,
      ending: null,
    };
    seat.running.set(task.taskId, running);
    const header = {
      t: "task",
      id: task.taskId,
      function_id: task.functionId,
      attempt,
      resource_specification: task.resourceSpecification,
      result_serializers: task.resultSerializers,
    };
    try {
      await seat.worker.send(header, task.body);
    } catch {
      // its end is reported by the fork server, and the task answered then
    }
  }

  #onReady(worker: Worker): void {
    const seat = this.#seats[worker.slot];
    if (!seat) return;
    seat.worker = worker;
    seat.done = 0;
    const places = this.#config.workerKind === "threads" ? this.#threads : 1;
    for (let i = 0; i < places; i++) this.#free.push(seat);
    this.#giveRoom(places);
    this.#reportSoon();
    this.#dispatch();
  }

  #onFrame(worker: Worker, frame: Frame): void {
    const seat = this.#seats[worker.slot];
    const { header, body } = frame;
    const running = seat?.running.get(String(header.id));
    if (!seat || !running || header.t !== "result") return;
    seat.running.delete(running.task.taskId);
    seat.done++;
    seat.deaths = 0;
    this.#tasksDone++;
    this.#idleSinceMs = monoMs();
    const { maxTasksPerChild } = this.#config;
    if (maxTasksPerChild !== null && seat.done >= maxTasksPerChild) {
      seat.worker = null;
      void worker.send({ t: "exit" }, new Uint8Array(0)).catch(() => {});
    } else {
      this.#free.push(seat);
      this.#giveRoom(1);
      this.#dispatch();
    }
    if (running.ending?.how === "drop") return;
    this.#finish(running, closeResult(body, this.#tail(running, header)), undefined);
  }

  /** The part of a result that only the manager knows. */
  #tail(running: Running, header: Record<string, unknown>): string {
    const facts = this.#nursery.facts;
    const { task, attempt } = running;
    const start = Number(header.start_ns);
    const end = Number(header.end_ns);
    const details = {
      os: facts?.os,
      python_version: facts?.python,
      dill_version: facts?.dill,
      globus_compute_sdk_version: null,
      endpoint_id: this.#config.endpointId,
      endpoint_version: VERSION,
      host: HOST,
      block_id: this.#options.blockId,
      manager_id: this.#options.managerId,
      worker: running.slot,
      attempt,
      stdout: header.stdout ?? undefined,
      stderr: header.stderr ?? undefined,
      timings: {
        endpoint_received: task.receivedNs,
        stored: task.storedNs,
        node_received: Number(running.arrivedNs),
        begun: Number(running.begunNs),
        execution_start: start,
        execution_end: end,
        node_finished: Number(wallNs()),
        cpu_ns: header.cpu_ns,
      },
    };
    const statuses = [
      { timestamp: start, state: "execution-start", actor: "worker" },
      { timestamp: end, state: "execution-end", actor: "worker" },
    ];
    return `,"details":${JSON.stringify(details)},"task_statuses":${JSON.stringify(statuses)}}}`;
  }

  #finish(
    running: Held & { attempt: number },
    body: Uint8Array,
    systemFailure: string | undefined,
  ): void {
    this.#unstored++;
    this.#unstoredBytes += body.length;
    void this.#bus.finish({ task: running.task, attempt: running.attempt, body, systemFailure })
      .catch((error) => {
        this.#log.error("A result could not be stored", {
          task: running.task.taskId,
          error: errorText(error),
        });
      })
      .finally(() => {
        this.#unstored--;
        this.#unstoredBytes -= body.length;
        this.#giveRoom(0);
      });
  }

  #onWorkerEnd(end: WorkerEnd): void {
    const seat = this.#seats[end.slot];
    if (!seat) return;
    const expected = seat.worker === null || this.#state === "stopped";
    if (seat.worker && seat.worker.pid !== end.pid) return;
    seat.worker = null;
    for (let at = this.#free.indexOf(seat); at >= 0; at = this.#free.indexOf(seat)) {
      this.#free.splice(at, 1);
      // the room that was given for it is still out there; the next worker in this seat makes up for it
      this.#room--;
    }
    for (const running of seat.running.values()) this.#answerDeath(running, end);
    seat.running.clear();
    if (this.#state === "stopped") return;
    if (!expected) this.#log.warn("A worker ended", { worker: end.slot, how: howItEnded(end) });
    seat.deaths = seat.done > 0 ? 0 : seat.deaths + 1;
    const waitMs = seat.deaths < 3 ? 0 : Math.min(30_000, 250 * 2 ** (seat.deaths - 3));
    setTimeout(() => {
      if (this.#state === "running") void this.#nursery.fork(seat.slot, this.#threads);
    }, waitMs);
    this.#reportSoon();
  }

  #answerDeath(running: Running, end: WorkerEnd): void {
    if (running.ending?.how === "drop") return;
    if (running.ending) {
      return this.#fail(running, "TaskCancelled", running.ending.why, { cancelled: true });
    }
    const last = this.#lastErrorLines(running.slot);
    this.#fail(
      running,
      "WorkerLost",
      howItEnded(end) + (last ? `. Last lines of stderr:\n${last}` : ""),
    );
  }

  #fail(
    running: Held & { attempt: number },
    code: ErrorCode,
    why: string,
    options: { cancelled?: boolean } = {},
  ): void {
    const host = HOST;
    const text = options.cancelled
      ? `The task was ended on node ${host}: ${why}`
      : `WorkerLost: the worker that ran the task on node ${host} was lost: ${why}`;
    const body = encodeErrorResult({
      taskId: running.task.taskId,
      code,
      text,
      details: {
        endpoint_id: this.#config.endpointId,
        host,
        block_id: this.#options.blockId,
        attempt: running.attempt,
        python_version: this.#nursery.facts?.python,
        dill_version: this.#nursery.facts?.dill,
      },
    });
    this.#finish(running, body, options.cancelled ? undefined : why.split("\n")[0]);
  }

  #lastErrorLines(slot: number): string {
    const path = `${this.#config.logDir}/${this.#options.managerId}/worker-${slot}.stderr`;
    try {
      const text = Deno.readTextFileSync(path);
      Deno.truncateSync(path, 0);
      return text.slice(-4096).trimEnd().split("\n").slice(-10).join("\n");
    } catch {
      return "";
    }
  }

  #onNurseryEnd(why: string): void {
    if (this.#state === "stopped") return;
    this.#log.error("The fork server ended; ending this manager", { why });
    for (const seat of this.#seats) {
      for (const running of seat.running.values()) this.#fail(running, "WorkerLost", why);
      seat.running.clear();
      seat.worker = null;
    }
    this.#free.length = 0;
    void this.drain(why);
  }

  #onCommand(command: ManagerCommand): void {
    switch (command.t) {
      case "cancel":
        return this.#endTask(command.taskId, "cancel", "it was cancelled");
      case "given-away":
        for (const id of command.taskIds) this.#endTask(id, "drop", "it was given to another node");
        return;
      case "drain":
        return void this.drain(command.reason, { kill: command.kill });
      case "report":
        return this.report();
      case "pause":
        this.#paused = command.on;
        return this.#giveRoom(0);
      default: {
        const never: never = command;
        this.#log.warnOnce("command", "A command is not understood", { command: never });
      }
    }
  }

  #endTask(taskId: string, how: "cancel" | "drop", why: string): void {
    for (const seat of this.#seats) {
      const running = seat.running.get(taskId);
      if (!running) continue;
      running.ending = { how, why };
      return this.#endWorker(seat);
    }
  }

  #endWorker(seat: Seat): void {
    const { worker } = seat;
    if (worker) void this.#nursery.end(worker.pid, () => seat.worker === worker);
  }

  async #stop(reason: string): Promise<void> {
    this.#state = "stopped";
    clearInterval(this.#beat);
    clearTimeout(this.#soon);
    clearTimeout(this.#drainTimer);
    await this.#nursery.stop();
    await this.#bus.close(reason);
    this.#log.info("Stopped", { reason, tasksDone: this.#tasksDone });
    this.#ended.resolve(reason);
  }
}

const encoder = new TextEncoder();

function closeResult(body: Uint8Array, tail: string): Uint8Array {
  const end = encoder.encode(tail);
  const whole = new Uint8Array(body.length + end.length);
  whole.set(body);
  whole.set(end, body.length);
  return whole;
}

const SIGNALS: Record<number, string> = {
  1: "SIGHUP",
  2: "SIGINT",
  4: "SIGILL",
  6: "SIGABRT",
  7: "SIGBUS",
  8: "SIGFPE",
  9: "SIGKILL",
  11: "SIGSEGV",
  15: "SIGTERM",
  24: "SIGXCPU",
};

/** What became of a worker, in words. */
export function howItEnded(end: WorkerEnd): string {
  const peak = `peak memory ${Math.round(end.maxrssKb / 1024)} MB`;
  if (end.signal === null) return `its process ended itself with exit code ${end.code} (${peak})`;
  const name = SIGNALS[end.signal] ? ` (${SIGNALS[end.signal]})` : "";
  const guess = end.signal === 9
    ? "; if nobody killed it, the node or the job ran out of memory"
    : "";
  return `its process was killed by signal ${end.signal}${name}, ${peak}${guess}`;
}
