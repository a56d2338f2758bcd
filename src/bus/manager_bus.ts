/**
 * A manager's side of the bus: takes tasks as room allows, asks the store for the right to begin each, stores results.
 *
 * A manager takes tasks from a server only once the endpoint has let it ("go"), because after a crash of the server, or a power
 * loss, the endpoint first clears away what was answered already. The permission holds for the life of that server process, so
 * that managers go on while the endpoint is away.
 * @module
 */
import type { Msg } from "nats";
import { backoffMs, deadline, errorText, type Logger, monoMs, sleep, wallMs } from "../base/mod.ts";
import { BusError, expectLast, PullRequests, StreamPublisher } from "./jetstream.ts";
import { Link, type NatsConnection } from "./link.ts";
import { BusNames, DEFAULT_LANE, PRIORITY_LANES, taskIdOf, TICKET_MARK } from "./names.ts";
import {
  decodeStart,
  encodeStart,
  hashSecret,
  readTask,
  resultHeaders,
  sequencesOf,
  type StartRecord,
} from "./records.ts";
import type {
  BusAccess,
  BusAddress,
  FinishedTask,
  ManagerBus,
  ManagerBusEvents,
  ManagerCommand,
  ManagerReport,
  TaskDelivery,
} from "./types.ts";

/** Options of {@linkcode connectManagerBus}. */
export interface ManagerBusOptions {
  /** Id of the manager, unique for each start. */
  managerId: string;
  /** Where records go. */
  log: Logger;
  /** Limit of one probe of an address, in milliseconds. @default 30_000 */
  probeMs?: number;
}

/** What the endpoint says to managers, beside {@linkcode ManagerCommand}. */
export type DownMessage = ManagerCommand | { t: "go"; server: string } | {
  t: "priority";
  lanes: string[];
};

/** Connects a manager; resolves at once, connecting goes on for ever. */
export async function connectManagerBus(
  access: BusAccess,
  events: ManagerBusEvents,
  options: ManagerBusOptions,
): Promise<ManagerBus & { readonly secretHash: string; lastFailure(): string }> {
  const secret = crypto.randomUUID() + crypto.randomUUID();
  const bus = new JetStreamManagerBus(access, events, {
    ...options,
    secret,
    secretHash: await hashSecret(secret),
  });
  bus.start();
  return bus;
}

type InnerOptions = ManagerBusOptions & { secret: string; secretHash: string };

class JetStreamManagerBus implements ManagerBus {
  readonly #names: BusNames;
  readonly #events: ManagerBusEvents;
  readonly #options: InnerOptions;
  readonly #log: Logger;
  readonly #link: Link;
  /** Tasks that may still be taken and that no request on the present connection stands for. */
  #room = 0;
  #nonce = 1;
  #approvedServer = "";
  #taking = true;
  #pull: PullRequests | null = null;
  #publisher: StreamPublisher | null = null;
  /** Lanes with waiting priority tasks, as the endpoint last said. */
  #priorityLanes: string[] = [];

  constructor(access: BusAccess, events: ManagerBusEvents, options: InnerOptions) {
    this.#names = new BusNames(access.endpointId);
    this.#events = events;
    this.#options = options;
    this.#log = options.log.child("bus");
    this.#link = new Link({
      name: `manager ${options.managerId}`,
      address: () => JSON.parse(Deno.readTextFileSync(access.addressFile)) as BusAddress,
      credentials: () => Deno.readTextFileSync(access.seedFile),
      inboxPrefix: this.#names.inbox("manager"),
      onOpen: (connection) => this.#onOpen(connection),
      onReady: (connection, epoch) => this.#onReady(connection, epoch),
      onLost: () => this.#onLost(),
      log: options.log,
      probeMs: options.probeMs ?? 30_000,
    });
  }

  get connected(): boolean {
    return this.#link.connection !== null;
  }

  get secretHash(): string {
    return this.#options.secretHash;
  }

  lastFailure(): string {
    return this.#link.lastFailure;
  }

  start(): void {
    this.#link.start();
  }

  addRoom(tasks: number): void {
    this.#room += tasks;
    this.#ask();
  }

  async stopTaking(): Promise<void> {
    this.#taking = false;
    this.#pull?.stop();
    this.#pull = null;
    // what is on its way to the old subscription is lost for us; the goodbye lets the endpoint give it out again
    await this.#link.connection?.flush().catch(() => {});
  }

  async begin(task: TaskDelivery, worker: number): Promise<number | null> {
    const subject = this.#names.start(task.taskId);
    const nonce = this.#nonce++;
    let expected = 0;
    let attempt = 1;
    let taken = false;
    for (;;) {
      const record: StartRecord = {
        manager: this.#options.managerId,
        secretHash: this.#options.secretHash,
        attempt,
        taskSeq: task.seq,
        worker,
        nonce,
        atMs: Math.floor(wallMs()),
        released: false,
      };
      try {
        const publisher = await this.#open();
        await publisher.publish(subject, encodeStart(record), expectLast(expected));
        return attempt;
      } catch (error) {
        if (!(error instanceof BusError)) throw error;
        taken = error.wrongLastSequence;
        if (error.kind === "refused" && !taken) {
          this.#log.warn("The bus refused a start record", { task: task.taskId, error });
          await sleep(200);
        }
      }
      // someone's record is there, or the answer to ours was lost on the way: read what the store has
      const last = await this.#lastStart(task.taskId);
      if (last === null) {
        // a record was there and is gone: the task was answered meanwhile
        if (taken) return null;
        continue;
      }
      if (last.record.released) {
        expected = last.seq;
        attempt = last.record.attempt + 1;
      } else if (
        last.record.secretHash === this.#options.secretHash && last.record.nonce === nonce
      ) {
        return attempt;
      } else {
        return null;
      }
    }
  }

  giveBack(tasks: TaskDelivery[]): void {
    if (tasks.length === 0) return;
    this.#up("back", JSON.stringify(tasks.map((task) => task.seq)));
  }

  async finish(result: FinishedTask): Promise<void> {
    const { task, attempt, body, systemFailure } = result;
    const subject = this.#names.result(task.taskId);
    for (let failures = 1;; failures++) {
      try {
        const publisher = await this.#open();
        const { secret } = this.#options;
        await publisher.publish(
          subject,
          body,
          resultHeaders({ secret, attempt, systemFailure }),
        );
        return;
      } catch (error) {
        if (!(error instanceof BusError)) throw error;
        // it is stored already: the answer to an earlier try was lost
        if (error.wrongLastSequence) return;
        if (error.kind === "refused") {
          this.#log.warnOnce(`outbox-${error.code}`, "The outbox refuses results; keeping them", {
            error,
          });
        }
        await sleep(backoffMs(failures, { minMs: 50, maxMs: 2000 }));
      }
    }
  }

  report(report: ManagerReport): void {
    this.#up("report", JSON.stringify({ ...report, server: this.#approvedServer }));
  }

  async close(reason: string): Promise<void> {
    await this.stopTaking();
    this.#up("bye", JSON.stringify({ reason }));
    await this.#link.close();
  }

  #onOpen(connection: NatsConnection): void {
    const { managerId } = this.#options;
    this.#publisher = new StreamPublisher(connection, this.#names.inbox("manager"));
    for (const target of [managerId, "all"]) {
      connection.subscribe(this.#names.down(target), {
        callback: (_, message) => this.#onDown(message),
      });
    }
    this.#pull = null;
  }

  #onReady(connection: NatsConnection, epoch: number): void {
    if (connection.info?.server_id === this.#approvedServer) this.#startTaking(connection);
    this.#events.onConnected(epoch);
  }

  #onLost(): void {
    // requests died with the connection; what they stood for may be taken again
    this.#room += this.#pull?.asked ?? 0;
    this.#pull = null;
    this.#publisher = null;
    this.#events.onDisconnected();
  }

  #onDown(message: Msg): void {
    const command = JSON.parse(message.string()) as DownMessage;
    if (command.t === "go") {
      this.#approvedServer = command.server;
      const connection = this.#link.connection;
      if (connection?.info?.server_id === command.server) this.#startTaking(connection);
    } else if (command.t === "priority") {
      this.#priorityLanes = command.lanes;
    } else {
      this.#events.onCommand(command);
    }
  }

  #startTaking(connection: NatsConnection): void {
    if (this.#pull || !this.#taking) return;
    this.#pull = new PullRequests(connection, {
      stream: this.#names.tasks,
      consumer: DEFAULT_LANE,
      inboxPrefix: this.#names.inbox("manager"),
      onMessage: (message) => this.#onTask(message),
    });
    this.#ask();
  }

  #ask(): void {
    if (!this.#pull || this.#room <= 0) return;
    const room = this.#room;
    this.#room = 0;
    if (this.#priorityLanes.length === 0) return this.#pull.ask(room);
    for (let i = 0; i < room; i++) void this.#takePriority(null);
  }

  #onTask(message: Msg): void {
    const id = taskIdOf(message.subject);
    if (id.startsWith(TICKET_MARK)) {
      void this.#takePriority(sequencesOf(message).seq);
      return;
    }
    this.#events.onTask(readTask(message, id));
  }

  /**
   * Takes the first task of the best priority lane, else asks for one in the default lane.
   * @param ticket sequence of the ticket that was delivered in its stead, to be cleared away by the endpoint
   */
  async #takePriority(ticket: number | null): Promise<void> {
    const connection = this.#link.connection;
    if (ticket !== null) this.#up("ticket", JSON.stringify([ticket]));
    const lanes = ticket !== null ? PRIORITY_LANES : this.#priorityLanes;
    try {
      for (const lane of lanes) {
        if (!connection) break;
        const message = await this.#takeOne(connection, lane);
        if (message) return this.#events.onTask(readTask(message, taskIdOf(message.subject)));
      }
    } catch (error) {
      this.#log.debug("Cannot take a priority task", { error: errorText(error) });
    }
    if (this.#pull) this.#pull.ask(1);
    else this.#room++;
  }

  /** A request of its own: a task is delivered under its own subject, which `request` would not recognise. */
  async #takeOne(connection: NatsConnection, lane: string): Promise<Msg | null> {
    const reply = `${this.#names.inbox("manager")}.${connection.info!.client_id}q${this.#nonce++}`;
    const answered = Promise.withResolvers<Msg | null>();
    const subscription = connection.subscribe(reply, {
      max: 1,
      callback: (error, message) => answered.resolve(error ? null : message),
    });
    const subject = `$JS.API.CONSUMER.MSG.NEXT.${this.#names.tasks}.${lane}`;
    connection.publish(subject, '{"batch":1,"no_wait":true}', { reply });
    try {
      const message = await deadline(answered.promise, 5000, "a priority task");
      return message?.reply?.startsWith("$JS.ACK") ? message : null;
    } finally {
      subscription.unsubscribe();
    }
  }

  async #open(): Promise<StreamPublisher> {
    if (!this.#publisher) await this.#link.opened();
    return this.#publisher!;
  }

  async #lastStart(taskId: string): Promise<{ record: StartRecord; seq: number } | null> {
    const subject = this.#names.start(taskId);
    for (const since = monoMs();;) {
      try {
        const connection = await this.#link.opened();
        const message = await connection.request(
          `$JS.API.DIRECT.GET.${this.#names.starts}.${subject}`,
          "",
          { timeout: 5000 },
        );
        const code = message.headers?.code ?? 0;
        if (code === 404) return null;
        if (code === 0) {
          const seq = Number(message.headers!.get("Nats-Sequence"));
          return { record: decodeStart(message.string()), seq };
        }
      } catch (error) {
        this.#log.debug("Cannot read a start record", { taskId, error: errorText(error) });
      }
      if (monoMs() - since > 60_000) this.#log.warn("Still cannot read a start record", { taskId });
      await sleep(100);
    }
  }

  #up(kind: string, body: string): void {
    this.#link.connection?.publish(this.#names.up(kind, this.#options.managerId), body);
  }
}
