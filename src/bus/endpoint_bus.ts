/**
 * The endpoint's side of the bus: stores tasks, hears of starts and results, takes away what is answered, commands managers.
 *
 * It decides nothing: what a start or a result means is the bridge's business. Everything here is bound to one connection
 * and is set up again on the next.
 * A long file: one short method for each thing that can be asked of the bus.
 * @module
 */
import { headers, type Msg } from "nats";
import type { JetStreamManager } from "nats/jetstream";
import { errorText, type Logger, wallMs } from "../base/mod.ts";
import {
  ackSubject,
  BusError,
  expectLast,
  PullRequests,
  sendAck,
  sendNak,
  StreamPublisher,
} from "./jetstream.ts";
import { Link, type NatsConnection } from "./link.ts";
import type { DownMessage } from "./manager_bus.ts";
import { BusNames, DEFAULT_LANE, LANES, PRIORITY_LANES, taskIdOf, TICKET_MARK } from "./names.ts";
import {
  decodeStart,
  encodeStart,
  readResultHeaders,
  sequencesOf,
  type StartRecord,
  taskHeaders,
  type TaskMeta,
} from "./records.ts";
import { ensureStreams, resetBridgeConsumers, type StreamLimits } from "./streams.ts";
import type { BusAddress, ManagerReport } from "./types.ts";

/** A result as the outbox delivers it. */
export interface StoredResult {
  /** UUID of the task, lower case. */
  taskId: string;
  /** The message, untouched. */
  body: Uint8Array;
  /** Sequence in the OUTBOX. */
  seq: number;
  /** Made by the endpoint itself; no manager can publish such. */
  own: boolean;
  /** The session secret of the manager that sent it. */
  secret: string;
  /** Which attempt, from 1. */
  attempt: number;
  /** What the task ran on failed, in one line; `null` if not. */
  systemFailure: string | null;
}

/** Called by {@linkcode EndpointBus}; none may throw. */
export interface EndpointBusEvents {
  /** A connection is ready; `sameServer` is false if the server process is another than before. */
  onOpen(info: { serverId: string; version: string; sameServer: boolean }): void;
  /** The connection is gone; `reason` says why. */
  onLost(reason: string): void;
  /** A start (or release) record was stored. `seq` is its sequence in STARTS. */
  onStart(taskId: string, record: StartRecord, seq: number): void;
  /** A result was stored. */
  onResult(result: StoredResult): void;
  /** A manager reported. */
  onReport(report: ManagerReport & { server: string }): void;
  /** Sequences of tasks that a manager gives back without having begun them. */
  onGiveBack(managerId: string, seqs: number[]): void;
  /** Sequences of tickets that were used or found no task. */
  onTickets(seqs: number[]): void;
  /** A manager ends by itself. */
  onGoodbye(managerId: string, reason: string): void;
}

/** Options of {@linkcode EndpointBus}. */
export interface EndpointBusOptions {
  endpointId: string;
  address(): BusAddress;
  credentials(): string;
  limits: StreamLimits;
  /** Oldest server that is accepted; see NATS_MINIMUM. */
  checkVersion(version: string): void;
  log: Logger;
}

/** Results in hand of the bridge at most. */
const RESULT_WINDOW = 512;
/** Bytes of results in hand, above which no more are asked for. */
const RESULT_BYTES_IN_HAND = 48 * 1024 * 1024;
/** Bytes that one request may bring. */
const RESULT_BYTES_ASKED = 32 * 1024 * 1024;
const START_WINDOW = 4096;

/** The endpoint's side of the bus. */
export class EndpointBus {
  /** Names of this endpoint's streams and subjects. */
  readonly names: BusNames;
  readonly #options: EndpointBusOptions;
  readonly #events: EndpointBusEvents;
  readonly #log: Logger;
  readonly #link: Link;
  #publisher: StreamPublisher | null = null;
  #manager: JetStreamManager | null = null;
  #starts: PullRequests | null = null;
  #results: PullRequests | null = null;
  #serverId = "";
  /** Sizes of results that were delivered and not yet removed, by sequence. */
  #inHand = new Map<number, number>();
  #bytesInHand = 0;

  /** Makes it; nothing happens before its first call. */
  constructor(options: EndpointBusOptions, events: EndpointBusEvents) {
    this.#options = options;
    this.#events = events;
    this.#log = options.log.child("bus");
    this.names = new BusNames(options.endpointId);
    this.#link = new Link({
      name: `endpoint ${options.endpointId}`,
      address: options.address,
      credentials: options.credentials,
      inboxPrefix: this.names.inbox("endpoint"),
      onOpen: (connection) => this.#onOpen(connection),
      onReady: (connection) => this.#onReady(connection),
      onLost: (reason) => this.#onLost(reason),
      log: options.log,
      maxWaitMs: 1000,
    });
  }

  /** Connects; resolves when the streams are there. */
  async start(signal?: AbortSignal): Promise<void> {
    this.#link.start();
    await this.#link.opened(signal);
  }

  /** Whether there is a connection now. */
  get connected(): boolean {
    return this.#link.connection !== null;
  }

  /** Why the last attempt to connect failed. */
  get lastFailure(): string {
    return this.#link.lastFailure;
  }

  /** Resolves when there is a connection again. @throws once closed */
  async opened(signal?: AbortSignal): Promise<void> {
    await this.#link.opened(signal);
  }

  /** Publishes whose acknowledgement is awaited. */
  get pending(): number {
    return this.#publisher?.pending ?? 0;
  }

  /**
   * Stores a task.
   * @returns its sequence, or `null` if the store holds it already
   * @throws {BusError} `full` if there is no room, `lost` or `timeout` if another try is due
   */
  async storeTask(
    task: TaskMeta & { taskId: string; lane: string; body: Uint8Array },
  ): Promise<number | null> {
    try {
      return await this.#open().publish(
        this.names.task(task.lane, task.taskId),
        task.body,
        taskHeaders(task),
      );
    } catch (error) {
      if (error instanceof BusError && error.subjectTaken) return null;
      throw error;
    }
  }

  /** Stores a ticket in the default lane for a task in a priority lane. @returns its sequence */
  async storeTicket(taskId: string): Promise<number | null> {
    try {
      const subject = this.names.task(DEFAULT_LANE, TICKET_MARK + taskId);
      return await this.#open().publish(subject, new Uint8Array(0));
    } catch (error) {
      if (error instanceof BusError && error.subjectTaken) return null;
      throw error;
    }
  }

  /**
   * Takes away a task that was delivered. Should the server die before it does, the ledger tells at its restart, before
   * managers may take tasks again.
   */
  removeTask(lane: string, seq: number): void {
    this.#ack(ackSubject(this.names.tasks, lane, { seq }));
  }

  /** Takes away a task that was perhaps never delivered. @returns whether it was there */
  async deleteTask(seq: number): Promise<boolean> {
    try {
      return await this.#admin().streams.deleteMessage(this.names.tasks, seq, false);
    } catch (error) {
      if (/no message found|sequence \d+ not found|not found/i.test(errorText(error))) return false;
      throw error;
    }
  }

  /** Takes away a used ticket. */
  removeTicket(seq: number): void {
    this.#ack(ackSubject(this.names.tasks, DEFAULT_LANE, { seq }));
  }

  /** Takes a start record away. */
  removeStart(seq: number): void {
    this.#ack(ackSubject(this.names.starts, this.names.bridge, { seq }));
  }

  /** Takes away a result and makes room for the next. */
  removeResult(seq: number): void {
    this.#ack(ackSubject(this.names.outbox, this.names.bridge, { seq }));
    this.#bytesInHand -= this.#inHand.get(seq) ?? 0;
    if (this.#inHand.delete(seq)) this.#results?.refill();
  }

  /**
   * Has tasks delivered again that were delivered and have not begun. Always safe: a start record decides who may begin.
   * @param lanes sequences by lane
   */
  async redeliver(lanes: Map<string, number[]>): Promise<void> {
    const connection = await this.#link.opened();
    for (const [lane, seqs] of lanes) {
      const info = await this.#admin().consumers.info(this.names.tasks, lane);
      const consumerSeq = info.delivered.consumer_seq;
      for (const seq of seqs) {
        sendNak(connection, ackSubject(this.names.tasks, lane, { seq, consumerSeq }));
      }
    }
  }

  /**
   * Begins a task in the endpoint's own name, so that no manager can: before it is answered without a run.
   * @throws {BusError} `wrongLastSequence` if somebody began it
   */
  claim(taskId: string, taskSeq: number): Promise<number> {
    const record: StartRecord = {
      manager: "",
      secretHash: "",
      attempt: 0,
      taskSeq,
      worker: 0,
      nonce: 0,
      atMs: Math.floor(wallMs()),
      released: false,
    };
    return this.#open().publish(this.names.start(taskId), encodeStart(record), expectLast(0));
  }

  /**
   * Allows another attempt of a task whose start record is `startSeq`.
   * @throws {BusError} `wrongLastSequence` if the record has changed
   */
  release(
    taskId: string,
    options: { startSeq: number; attempt: number; taskSeq: number },
  ): Promise<number> {
    const record: StartRecord = {
      manager: "",
      secretHash: "",
      attempt: options.attempt,
      taskSeq: options.taskSeq,
      worker: 0,
      nonce: 0,
      atMs: Math.floor(wallMs()),
      released: true,
    };
    return this.#open().publish(
      this.names.start(taskId),
      encodeStart(record),
      expectLast(options.startSeq),
    );
  }

  /** The last start record of a task, from the store. */
  async lastStart(taskId: string): Promise<{ record: StartRecord; seq: number } | null> {
    const found = await this.#lastBySubject(this.names.starts, this.names.start(taskId));
    return found && { record: decodeStart(found.string()), seq: sequenceHeader(found) };
  }

  /** The sequence and lane of a stored task, from the store. */
  async findTask(taskId: string): Promise<{ seq: number; lane: string } | null> {
    for (const lane of [DEFAULT_LANE, ...PRIORITY_LANES]) {
      const found = await this.#lastBySubject(this.names.tasks, this.names.task(lane, taskId));
      if (found) return { seq: sequenceHeader(found), lane };
    }
    return null;
  }

  /** Ids of all stored tasks, with their lanes. */
  async storedTasks(): Promise<{ taskId: string; lane: string }[]> {
    const info = await this.#admin().streams.info(this.names.tasks, {
      subjects_filter: `${this.names.prefix}.task.>`,
    });
    return Object.keys(info.state.subjects ?? {}).map((subject) => {
      const [taskId, lane] = subject.split(".").reverse();
      return { taskId: taskId!, lane: lane! };
    }).filter(({ taskId }) => !taskId.startsWith(TICKET_MARK));
  }

  /** Stores an answer of the endpoint itself; one a task. */
  async storeAnswer(taskId: string, body: Uint8Array): Promise<void> {
    try {
      await this.#open().publish(this.names.answer(taskId), body, expectLast(0));
    } catch (error) {
      if (error instanceof BusError && error.wrongLastSequence) return;
      throw error;
    }
  }

  /** Adds answered ids to the ledger. @returns the sequence of the entry */
  appendLedger(ids: Uint8Array): Promise<number> {
    return this.#open().publish(this.names.ledgerSubject, ids);
  }

  /** Drops ledger entries up to and including `seq`. */
  async purgeLedger(seq: number): Promise<void> {
    await this.#admin().streams.purge(this.names.ledger, { seq: seq + 1 });
  }

  /** All entries of the ledger, oldest first. */
  async *readLedger(): AsyncGenerator<{ seq: number; ids: Uint8Array }> {
    const connection = await this.#link.opened();
    const info = await this.#admin().streams.info(this.names.ledger);
    for (let seq = info.state.first_seq; seq <= info.state.last_seq;) {
      const message = await connection.request(
        `$JS.API.DIRECT.GET.${this.names.ledger}`,
        JSON.stringify({ seq, next_by_subj: this.names.ledgerSubject }),
        { timeout: 10_000 },
      );
      if ((message.headers?.code ?? 0) !== 0) return;
      const found = sequenceHeader(message);
      yield { seq: found, ids: message.data };
      seq = found + 1;
    }
  }

  /** Numbers for `status`: tasks stored, tasks nobody has taken yet, results and starts in store, bytes. */
  async counts(): Promise<{ stored: number; untaken: number; results: number; bytes: number }> {
    const admin = this.#admin();
    const [tasks, outbox, ...lanes] = await Promise.all([
      admin.streams.info(this.names.tasks),
      admin.streams.info(this.names.outbox),
      ...LANES.map((lane) => admin.consumers.info(this.names.tasks, lane)),
    ]);
    return {
      stored: tasks.state.messages,
      untaken: lanes.reduce((sum, lane) => sum + lane.num_pending, 0),
      results: outbox.state.messages,
      bytes: tasks.state.bytes + outbox.state.bytes,
    };
  }

  /** Tasks that no manager has been given yet, by lane. */
  async untaken(lane: string): Promise<{ pending: number; lastDelivered: number }> {
    const info = await this.#admin().consumers.info(this.names.tasks, lane);
    return { pending: info.num_pending, lastDelivered: info.delivered.stream_seq };
  }

  /** Lets managers take tasks from the present server process. */
  allow(managerId: string): void {
    this.command(managerId, { t: "go", server: this.#serverId });
  }

  /** Sends a command to one manager or `all`. */
  command(managerId: string, command: DownMessage): void {
    this.#link.connection?.publish(this.names.down(managerId), JSON.stringify(command));
  }

  /** Ends it for good. */
  async close(): Promise<void> {
    await this.#link.close();
  }

  async #onOpen(connection: NatsConnection): Promise<void> {
    this.#options.checkVersion(connection.info!.version);
    this.#manager = await ensureStreams(connection, {
      names: this.names,
      limits: this.#options.limits,
    });
    // what was delivered to an earlier connection of ours, and not acknowledged, has to come again
    await resetBridgeConsumers(this.#manager, this.names);
    this.#publisher = new StreamPublisher(connection, this.names.inbox("endpoint"));
    this.#subscribeUp(connection);
  }

  #onReady(connection: NatsConnection): void {
    const { server_id: serverId, version } = connection.info!;
    const sameServer = serverId === this.#serverId;
    this.#serverId = serverId;
    this.#events.onOpen({ serverId, version, sameServer });
  }

  /**
   * Begins to take starts and results on the present connection; to be called once for each `onOpen`, when the caller
   * knows again what was answered.
   */
  consume(): void {
    const connection = this.#link.connection;
    if (!connection || this.#results) return;
    const inboxPrefix = this.names.inbox("endpoint");
    const { starts, outbox, bridge: consumer } = this.names;
    this.#starts = new PullRequests(connection, {
      stream: starts,
      consumer,
      inboxPrefix: `${inboxPrefix}.s`,
      onMessage: (message) => this.#onStart(message),
      window: () => START_WINDOW,
    });
    this.#starts.refill();
    this.#results = new PullRequests(connection, {
      stream: outbox,
      consumer,
      inboxPrefix: `${inboxPrefix}.r`,
      maxBytes: RESULT_BYTES_ASKED,
      onMessage: (message) => this.#onResult(message),
      window: () =>
        this.#bytesInHand < RESULT_BYTES_IN_HAND ? RESULT_WINDOW - this.#inHand.size : 0,
    });
    this.#results.refill();
  }

  #onStart(message: Msg): void {
    const { seq } = sequencesOf(message);
    try {
      this.#events.onStart(taskIdOf(message.subject), decodeStart(message.string()), seq);
    } catch (error) {
      this.#log.warn("A start record cannot be read; it is dropped", { error });
      this.removeStart(seq);
    }
  }

  #onResult(message: Msg): void {
    const parts = message.subject.split(".");
    const { seq } = sequencesOf(message);
    this.#inHand.set(seq, message.data.length);
    this.#bytesInHand += message.data.length;
    this.#events.onResult({
      taskId: parts[3]!,
      body: message.data,
      seq,
      own: parts[2] === "answer",
      ...readResultHeaders(message),
    });
  }

  #onLost(reason: string): void {
    this.#publisher = null;
    this.#manager = null;
    this.#starts = null;
    this.#results = null;
    this.#inHand.clear();
    this.#bytesInHand = 0;
    this.#events.onLost(reason);
  }

  #subscribeUp(connection: NatsConnection): void {
    connection.subscribe(this.names.up("*", "*"), {
      callback: (_, message) => {
        const [managerId, kind] = message.subject.split(".").reverse() as [string, string];
        try {
          this.#onUp(kind, managerId, message.json());
        } catch (error) {
          this.#log.warnOnce(`up-${managerId}`, "A manager's message cannot be read", {
            manager: managerId,
            error,
          });
        }
      },
    });
  }

  #onUp(kind: string, managerId: string, body: unknown): void {
    if (kind === "report") {
      const report = body as ManagerReport & { server: string };
      if (report.managerId === managerId) this.#events.onReport(report);
    } else if (kind === "back") {
      this.#events.onGiveBack(managerId, body as number[]);
    } else if (kind === "ticket") {
      this.#events.onTickets(body as number[]);
    } else if (kind === "bye") {
      this.#events.onGoodbye(managerId, String((body as { reason?: unknown }).reason));
    }
  }

  #open(): StreamPublisher {
    if (!this.#publisher) throw new BusError("lost", "There is no connection to the bus now");
    return this.#publisher;
  }

  #admin(): JetStreamManager {
    if (!this.#manager) throw new BusError("lost", "There is no connection to the bus now");
    return this.#manager;
  }

  #ack(subject: string): void {
    const connection = this.#link.connection;
    if (connection) sendAck(connection, subject);
  }

  async #lastBySubject(stream: string, subject: string): Promise<Msg | null> {
    const connection = await this.#link.opened();
    const message = await connection.request(`$JS.API.DIRECT.GET.${stream}.${subject}`, "", {
      timeout: 10_000,
      headers: headers(),
    });
    return (message.headers?.code ?? 0) === 0 ? message : null;
  }
}

function sequenceHeader(message: Msg): number {
  return Number(message.headers!.get("Nats-Sequence"));
}
