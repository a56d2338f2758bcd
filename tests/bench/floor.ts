/**
 * The floor: the least an agent can do. Takes a task from AMQP, publishes a result that was made beforehand, nothing
 * between; acknowledges the task when the broker has confirmed the result.
 *
 * Frozen: figures of different versions are compared by their ratio to this, so it is not to be improved.
 * Reads one JSON object from standard input, see {@linkcode FloorInput}; prints "ready" when it consumes.
 * @module
 */
import { Buffer } from "node:buffer";
import amqp from "amqplib";

/** What the floor is told. */
export interface FloorInput {
  url: string;
  taskQueue: string;
  exchange: string;
  routingKey: string;
  /** The `data` of every result. */
  result: string;
}

async function floor(input: FloorInput): Promise<void> {
  const connection = await amqp.connect(input.url, { noDelay: true });
  const channel = await connection.createConfirmChannel();
  const head = Buffer.from('\x01{"message_type":"result","data":{"task_id":"');
  const tail = Buffer.from(`","data":${JSON.stringify(input.result)}}}`);
  const { exchange, routingKey } = input;
  await channel.consume(input.taskQueue, (message) => {
    if (!message) return;
    const id = Buffer.from(message.properties.headers!.task_uuid as string);
    channel.publish(
      exchange,
      routingKey,
      Buffer.concat([head, id, tail]),
      { persistent: true, mandatory: true },
      () => channel.ack(message),
    );
  }, { exclusive: true });
  console.log("ready");
}

if (import.meta.main) await floor(JSON.parse(await new Response(Deno.stdin.readable).text()));
