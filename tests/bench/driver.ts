/**
 * The driver: plays the web service at the AMQP side of an agent. Makes the queues, publishes tasks, checks every
 * answer against what the real SDK's serializer makes of the same value, and measures.
 *
 * Frozen like floor.ts: both sides of every ratio are measured with this code.
 * @module
 */
import { Buffer } from "node:buffer";
import amqp from "amqplib";

/** One kind of task: what is sent, what has to come back. */
export interface TaskCase {
  /** The packed function, args and kwargs. */
  task_buffer: string;
  /** The `data` of the right result. */
  result: string;
}

/** Times of single round trips, in milliseconds. */
export interface RoundTrips {
  count: number;
  p50: number;
  p90: number;
  p99: number;
  max: number;
}

/** What a run at full speed gave. */
export interface Throughput {
  /** Answered within the measured time. */
  tasks: number;
  seconds: number;
  perSecond: number;
}

/** Where an agent finds its queues: the shape of a registration answer. */
export interface AgentQueues {
  endpoint_id: string;
  task_queue_info: Record<string, unknown>;
  result_queue_info: Record<string, unknown>;
  heartbeat_queue_info: Record<string, unknown>;
}

/** How {@linkcode Driver.throughput} measures. */
export interface ThroughputOptions {
  /** Tasks outstanding at any time. @default 256 */
  window?: number;
  /** Milliseconds before counting begins. @default 2000 */
  warmMs?: number;
  /** Milliseconds of counting. @default 6000 */
  measureMs?: number;
  /** Gives up when no answer came for so many milliseconds. @default 60_000 */
  stallMs?: number;
}

/** Tasks over one broker to one agent. */
export class Driver {
  /** The agent's id and queues. */
  readonly queues: AgentQueues;
  /** Answers that were wrong, came twice or to nobody; each is a fault of the agent. */
  readonly faults: string[] = [];
  readonly #connection: amqp.ChannelModel;
  readonly #channel: amqp.Channel;
  readonly #function = crypto.randomUUID();
  readonly #waiting = new Map<string, { wanted: Buffer; done: () => void }>();
  #answered = 0;

  private constructor(connection: amqp.ChannelModel, channel: amqp.Channel, queues: AgentQueues) {
    this.#connection = connection;
    this.#channel = channel;
    this.queues = queues;
  }

  /** Connects, and makes an agent's queues and exchanges. */
  static async open(url: string): Promise<Driver> {
    const connection = await amqp.connect(url, { noDelay: true });
    const channel = await connection.createChannel();
    const id = crypto.randomUUID();
    const names = { tasks: `${id}.tasks`, results: `${id}.results`, beats: `${id}.heartbeats` };
    await channel.assertExchange("results", "topic", { durable: true });
    await channel.assertExchange("heartbeats", "topic", { durable: true });
    for (const queue of Object.values(names)) await channel.assertQueue(queue, { durable: true });
    await channel.bindQueue(names.results, "results", names.results);
    await channel.bindQueue(names.beats, "heartbeats", names.beats);
    const target = (exchange: string, queue: string) => ({
      connection_url: url,
      exchange,
      queue,
      queue_publish_kwargs: {
        exchange,
        routing_key: queue,
        mandatory: true,
        properties: { delivery_mode: 2 },
      },
    });
    const driver = new Driver(connection, channel, {
      endpoint_id: id,
      task_queue_info: { connection_url: url, exchange: "tasks", queue: names.tasks },
      result_queue_info: target("results", names.results),
      heartbeat_queue_info: target("heartbeats", names.beats),
    });
    await channel.consume(names.results, (message) => message && driver.#take(message.content), {
      noAck: true,
    });
    await channel.consume(names.beats, () => {}, { noAck: true });
    return driver;
  }

  /** Sends one task; resolves with the milliseconds to its answer. */
  send(task: TaskCase): Promise<number> {
    const started = performance.now();
    return new Promise((resolve) =>
      this.#publish(task, () => resolve(performance.now() - started))
    );
  }

  /** Times `count` tasks one after another, after `warm` that are not counted. */
  async roundTrips(task: TaskCase, options: { count: number; warm?: number }): Promise<RoundTrips> {
    const { count, warm = Math.ceil(count / 10) } = options;
    const times: number[] = [];
    for (let n = -warm; n < count; n++) {
      const ms = await this.send(task);
      if (n >= 0) times.push(ms);
    }
    times.sort((a, b) => a - b);
    const at = (part: number) =>
      times[Math.min(times.length - 1, Math.floor(times.length * part))]!;
    return { count, p50: at(0.5), p90: at(0.9), p99: at(0.99), max: times.at(-1)! };
  }

  /**
   * Keeps a window of tasks outstanding and counts answers.
   *
   * @throws if no answer comes for `stallMs`
   */
  async throughput(task: TaskCase, options: ThroughputOptions = {}): Promise<Throughput> {
    const { window = 256, warmMs = 2000, measureMs = 6000, stallMs = 60_000 } = options;
    let open = true;
    let drained = () => {};
    const next = () => {
      if (open) this.#publish(task, next);
      else if (this.#waiting.size === 0) drained();
    };
    for (let n = 0; n < window; n++) this.#publish(task, next);
    let seen = this.#answered;
    let stalled: (error: Error) => void = () => {};
    const stall = new Promise<never>((_, reject) => stalled = reject);
    stall.catch(() => {});
    const watch = setInterval(() => {
      if (this.#answered === seen) {
        stalled(new Error(`No answer for ${stallMs} ms with ${this.#waiting.size} outstanding`));
      }
      seen = this.#answered;
    }, stallMs);
    const wait = (ms: number) => new Promise<void>((resolve) => setTimeout(resolve, ms));
    try {
      // a slow agent is still warming up until its first answers have come
      const before = this.#answered;
      await Promise.race([wait(warmMs), stall]);
      while (this.#answered === before) await Promise.race([wait(50), stall]);
      const [from, began] = [this.#answered, performance.now()];
      await Promise.race([wait(measureMs), stall]);
      const [tasks, seconds] = [this.#answered - from, (performance.now() - began) / 1000];
      open = false;
      if (this.#waiting.size > 0) {
        await Promise.race([new Promise<void>((resolve) => drained = resolve), stall]);
      }
      return { tasks, seconds, perSecond: tasks / seconds };
    } finally {
      open = false;
      clearInterval(watch);
    }
  }

  /** Removes the queues and closes the connection. */
  async close(): Promise<void> {
    const { task_queue_info, result_queue_info, heartbeat_queue_info } = this.queues;
    for (const { queue } of [task_queue_info, result_queue_info, heartbeat_queue_info]) {
      await this.#channel.deleteQueue(queue as string);
    }
    await this.#connection.close();
  }

  readonly #bodies = new WeakMap<TaskCase, { tail: Buffer; wanted: Buffer }>();

  #publish(task: TaskCase, done: () => void): void {
    let body = this.#bodies.get(task);
    if (!body) {
      body = {
        tail: Buffer.from(
          `","container_id":null,"task_buffer":${JSON.stringify(task.task_buffer)}}}`,
        ),
        wanted: Buffer.from(JSON.stringify(task.result)),
      };
      this.#bodies.set(task, body);
    }
    const id = crypto.randomUUID();
    this.#waiting.set(id, { wanted: body.wanted, done });
    const content = Buffer.concat([TASK_HEAD, Buffer.from(id), body.tail]);
    this.#channel.sendToQueue(this.queues.task_queue_info.queue as string, content, {
      persistent: true,
      headers: { function_uuid: this.#function, task_uuid: id },
    });
  }

  /** Checks an answer: version byte, JSON, kind, id, no error, and the very value that is wanted. */
  #take(content: Buffer): void {
    const id = idOf(content);
    const entry = id === undefined ? undefined : this.#waiting.get(id);
    if (!entry) {
      this.#fault(`An answer to no waiting task: ${content.subarray(0, 200)}`);
      return;
    }
    this.#waiting.delete(id!);
    const at = content.indexOf(entry.wanted);
    let right = false;
    if (at > 0 && content[0] === 1) {
      // the value was compared as bytes: it need not be parsed again
      const rest = content.toString("utf8", 1, at) + "true" +
        content.toString("utf8", at + entry.wanted.length);
      const { message_type, data } = JSON.parse(rest);
      right = message_type === "result" && data.task_id === id && data.data === true &&
        !data.error_details;
    }
    if (!right) this.#fault(`A wrong answer: ${content.subarray(0, 2000)}`);
    this.#answered++;
    entry.done();
  }

  #fault(text: string): void {
    if (this.faults.length < 20) this.faults.push(text);
  }
}

const TASK_HEAD = Buffer.from('\x01{"message_type":"task","data":{"task_id":"');
const TASK_ID = Buffer.from('"task_id"');

/** The task id of a result, from its bytes. */
function idOf(content: Buffer): string | undefined {
  const at = content.indexOf(TASK_ID);
  if (at < 0) return undefined;
  return /^\s*:\s*"([0-9a-f-]{36})"/.exec(
    content.toString("latin1", at + TASK_ID.length, at + TASK_ID.length + 60),
  )?.[1];
}
