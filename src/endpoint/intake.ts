/**
 * From AMQP into the bus: reads each delivery's headers, refuses what cannot be a task, stores the rest, acknowledges late.
 *
 * The body of a task is stored as it came; nothing parses it on the way unless it looks odd.
 * @module
 */
import { backoffMs, errorText, type Logger, monoMs, sleep, wallNs } from "../base/mod.ts";
import type { Consumer, Delivery } from "../amqp/types.ts";
import { BusError, type EndpointBus, laneOf } from "../bus/mod.ts";
import {
  decodeMessage,
  encodeErrorResult,
  type ErrorResult,
  VERSION_BYTE,
} from "../compute/mod.ts";
import type { AckQueue, HeldDelivery } from "./ack_queue.ts";
import type { Ledger } from "./ledger.ts";
import type { TaskEntry, TaskTable } from "./task_table.ts";

/** What a resource specification means for this engine. */
export type SpecificationCheck = (specification: string | null) =>
  | { priority: number | null }
  | { refused: string };

/** Options of {@linkcode Intake}. */
export interface IntakeOptions {
  endpointId: string;
  bus: EndpointBus;
  consumer: Consumer;
  acks: AckQueue;
  ledger: Ledger;
  table: TaskTable;
  /** Lower-case UUIDs of functions that may run; `null`: all. */
  allowedFunctions: ReadonlySet<string> | null;
  checkSpecification: SpecificationCheck;
  /** A `task_cancel` arrived. */
  onCancel(taskId: string): Promise<void>;
  /** A task was stored. */
  onStored(entry: TaskEntry): void;
  /** If not `null`, every new task is answered with this error (no block can be had). */
  refuseAll(): string | null;
  log: Logger;
}

const UUID = /^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$/;
/** How the body of an ordinary task begins, after the version byte. */
const TASK_START = /^\s*\{\s*"message_type"\s*:\s*"task"/;
/** Bytes on their way to the bus, above which the broker's socket is not read. */
const BYTES_IN_FLIGHT = 64 * 1024 * 1024;
/** Room in the store, as a part of what is allowed, at which intake begins again. */
const RESUME_BELOW = 0.95;

/** Counts for `status` and heartbeats. */
export interface IntakeCounts {
  received: number;
  stored: number;
  duplicates: number;
  refused: number;
}

/** Takes tasks from AMQP. */
export class Intake {
  readonly counts: IntakeCounts = { received: 0, stored: 0, duplicates: 0, refused: 0 };
  readonly #options: IntakeOptions;
  readonly #log: Logger;
  readonly #decoder = new TextDecoder();
  #bytesInFlight = 0;
  #throttled = false;
  #storing = 0;
  /** Why the store takes nothing now; `null` if it does. */
  #full: string | null = null;
  #stopped = false;

  constructor(options: IntakeOptions) {
    this.#options = options;
    this.#log = options.log.child("intake");
  }

  /** Why no tasks are taken now, for `status`; `null` if they are. */
  get paused(): string | null {
    return this.#full;
  }

  /** Tasks on their way to the bus. */
  get storing(): number {
    return this.#storing;
  }

  /** Takes one delivery. Never throws. */
  take(delivery: Delivery): void {
    this.counts.received++;
    const id = uuidHeader(delivery.headers, "task_uuid");
    const held = this.#options.acks.add(delivery, id ?? "");
    if (this.#full !== null || this.#stopped) return this.#options.acks.giveBack(held);
    if (id) this.#options.acks.cameAgain(id);
    this.#bytesInFlight += delivery.body.length;
    if (!this.#throttled && this.#bytesInFlight > BYTES_IN_FLIGHT) {
      this.#throttled = true;
      this.#options.consumer.throttle(true);
    }
    this.#storing++;
    void this.#handle(delivery, held, id)
      .catch((error) => {
        if (!this.#stopped) this.#log.error("A delivery could not be handled", { task: id, error });
        this.#options.acks.giveBack(held);
      })
      .finally(() => {
        this.#storing--;
        this.#bytesInFlight -= delivery.body.length;
        if (this.#throttled && this.#bytesInFlight < BYTES_IN_FLIGHT / 2) {
          this.#throttled = false;
          this.#options.consumer.throttle(false);
        }
      });
  }

  /** The store has room again. Called by the bridge as answers leave. */
  roomAgain(stored: number, allowed: number): void {
    if (this.#full === null || stored > allowed * RESUME_BELOW || this.#stopped) return;
    this.#log.info("The store has room again; taking tasks", { stored });
    this.#full = null;
    void this.#options.consumer.resume();
  }

  /** Takes nothing more; what comes is given back. */
  stop(): void {
    this.#stopped = true;
  }

  async #handle(delivery: Delivery, held: HeldDelivery, id: string | null): Promise<void> {
    const { acks, table, ledger } = this.#options;
    if (id && (table.get(id) || ledger.has(id))) {
      this.counts.duplicates++;
      // while the first copy is being stored its acknowledgement is what counts
      await this.#storedAlready(id);
      return acks.settle(held);
    }
    const refusal = this.#inspect(delivery, id);
    if (refusal === null) return await this.#store(delivery, held, id!);
    if (refusal === "cancel") {
      await this.#cancel(delivery);
    } else {
      this.counts.refused++;
      this.#log.warn("A message was refused", { task: refusal.taskId, reason: refusal.text });
      if (refusal.taskId) await this.#answer(refusal);
    }
    acks.settle(held);
  }

  /** @returns `null` for a task that is to be stored */
  #inspect(delivery: Delivery, id: string | null): null | "cancel" | ErrorResult {
    const { body, headers } = delivery;
    const start = this.#decoder.decode(body.subarray(1, 65));
    let taskId = id ?? "";
    if (body[0] !== VERSION_BYTE || !TASK_START.test(start)) {
      try {
        const { type, data } = decodeMessage(body);
        if (type === "task_cancel") return "cancel";
        if (!taskId && typeof data.task_id === "string" && UUID.test(data.task_id)) {
          taskId = data.task_id;
        }
        if (type !== "task") {
          return malformed(
            taskId,
            `a message of the type "${type.slice(0, 60)}" is not understood`,
          );
        }
      } catch (error) {
        return malformed(taskId, errorText(error));
      }
    }
    const functionId = uuidHeader(headers, "function_uuid");
    if (!id || !functionId) {
      taskId ||= taskIdIn(body) ?? "";
      const missing = [!id && "task_uuid", !functionId && "function_uuid"].filter(Boolean);
      return malformed(taskId, `its AMQP header ${missing.join(" and ")} is missing or no UUID`);
    }
    const { allowedFunctions, endpointId } = this.#options;
    if (allowedFunctions && !allowedFunctions.has(functionId)) {
      return {
        taskId,
        code: "FUNCTION_NOT_ALLOWED",
        text: `Function ${functionId} not permitted on endpoint ${endpointId}`,
        details: { fid: functionId, eid: endpointId },
      };
    }
    const closed = this.#options.refuseAll();
    if (closed !== null) return { taskId, code: "UNKNOWN_TASK_FAILURE", text: closed };
    return null;
  }

  async #store(delivery: Delivery, held: HeldDelivery, id: string): Promise<void> {
    const { bus, table, acks, checkSpecification } = this.#options;
    const specification = specificationHeader(delivery.headers);
    const checked = checkSpecification(specification);
    if ("refused" in checked) {
      this.counts.refused++;
      await this.#answer({
        taskId: id,
        code: "InvalidResourceSpecification",
        text: checked.refused,
      });
      return acks.settle(held);
    }
    const lane = laneOf(checked.priority);
    const entry = table.add(id, { lane, state: "storing", sinceMs: monoMs() });
    const task = {
      taskId: id,
      lane,
      body: delivery.body,
      functionId: uuidHeader(delivery.headers, "function_uuid")!,
      resourceSpecification: specification,
      resultSerializers: serializersHeader(delivery.headers),
      receivedNs: Number(wallNs()),
    };
    const storing = Promise.withResolvers<void>();
    entry.storing = storing.promise;
    try {
      const seq = await this.#untilStored(() => bus.storeTask(task));
      // null: a store whose answer was lost, or one of before this process, put it there
      if (seq !== null) entry.seq = seq;
    } catch (error) {
      table.delete(entry);
      if (error instanceof BusError && error.full) return this.#pause(held, error);
      throw error;
    } finally {
      entry.storing = null;
      storing.resolve();
    }
    if (entry.state === "storing") table.setState(entry, "waiting");
    this.counts.stored++;
    acks.settle(held);
    this.#options.onStored(entry);
  }

  /** Repeats a store until the bus has answered it one way or the other. */
  async #untilStored<T>(store: () => Promise<T>): Promise<T> {
    for (let failures = 1;; failures++) {
      try {
        return await store();
      } catch (error) {
        const final = !(error instanceof BusError) || error.full || this.#stopped;
        if (final) throw error;
        if (error.kind === "refused") {
          this.#log.warnOnce(`store-${error.code}`, "The bus refuses tasks; trying again", {
            error,
          });
        }
        await this.#options.bus.opened();
        await sleep(backoffMs(failures, { minMs: 20, maxMs: 2000 }));
      }
    }
  }

  /** Stores an answer made here, so that it survives like any other. */
  async #answer(error: ErrorResult): Promise<void> {
    const { bus, table } = this.#options;
    const entry = table.get(error.taskId) ??
      table.add(error.taskId, { state: "answering", sinceMs: monoMs() });
    try {
      await this.#untilStored(() => bus.storeAnswer(error.taskId, encodeErrorResult(error)));
    } catch (thrown) {
      table.delete(entry);
      throw thrown;
    }
  }

  async #cancel(delivery: Delivery): Promise<void> {
    const { data } = decodeMessage(delivery.body);
    if (typeof data.task_id === "string" && UUID.test(data.task_id.toLowerCase())) {
      await this.#options.onCancel(data.task_id.toLowerCase());
    }
  }

  #pause(held: HeldDelivery, error: BusError): void {
    this.#options.acks.giveBack(held);
    if (this.#full !== null) return;
    this.#full = `the store is full (${error.message})`;
    this.#log.warn("The store is full: tasks stay with the broker until there is room", { error });
    void this.#options.consumer.pause();
  }

  async #storedAlready(id: string): Promise<void> {
    await this.#options.table.get(id)?.storing;
  }
}

function malformed(taskId: string, why: string): ErrorResult {
  return {
    taskId,
    code: "MalformedTask",
    text: `The endpoint could not read this task: ${why}. The task was not run; submit it again`,
  };
}

/** The task id in a body that says `"task_id":"<uuid>"` somewhere, though it may not be whole. */
function taskIdIn(body: Uint8Array): string | null {
  const text = new TextDecoder().decode(body.subarray(0, 4096));
  return /"task_id"\s*:\s*"([0-9a-f-]{36})"/.exec(text)?.[1]?.match(UUID)?.[0] ?? null;
}

function uuidHeader(headers: Record<string, unknown>, name: string): string | null {
  const value = headers[name];
  if (typeof value !== "string") return null;
  const lower = value.toLowerCase();
  return UUID.test(lower) ? lower : null;
}

function specificationHeader(headers: Record<string, unknown>): string | null {
  const value = headers.resource_specification;
  if (value === undefined || value === null || value === "" || value === "null") return null;
  const text = typeof value === "string" ? value : JSON.stringify(value);
  return text === "{}" ? null : text;
}

function serializersHeader(headers: Record<string, unknown>): string[] | null {
  const value = headers.result_serializers;
  if (!Array.isArray(value)) return null;
  return value.filter((item): item is string => typeof item === "string");
}
