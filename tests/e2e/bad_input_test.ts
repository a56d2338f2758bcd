/** What AMQP may bring that is no good task: each is answered or dropped with a reason, nothing is lost, the next task runs. */
import { Buffer } from "node:buffer";
import { connect } from "amqplib";
import { equal, includes, ok } from "../support/assert.ts";
import { SDK_PYTHON, type Site, startSite } from "../support/site.ts";

const ENGINE = `  type: GlobusComputeEngine
  python: ${SDK_PYTHON}
  max_workers_per_node: 2
  cores_per_worker: 0.5
`;
const FUNCTION = crypto.randomUUID();
const ALLOWED = `allowed_functions: ["${FUNCTION}"]\n`;

/** A task buffer that any Python runs: plain source, JSON arguments. */
function buffer(source: string): string {
  return [`st\nf:${source}`, "11\n[]", "11\n{}"].map((part) => `${[...part].length}\n${part}`).join(
    "",
  );
}

function message(taskId: string, taskBuffer: string, type = "task"): Buffer {
  const data = { task_id: taskId, task_buffer: taskBuffer };
  return Buffer.from("\x01" + JSON.stringify({ message_type: type, data }));
}

const GOOD = buffer("def f(): return 1");

interface Result {
  task_id: string;
  data: string;
  error_details?: { code: string };
}

/** Speaks to an endpoint as the service does, and hears copies of all its results. */
async function wire(site: Site, endpointId: string) {
  const connection = await connect(site.broker.url);
  // closed by a test, it must not end the test run
  connection.on("error", () => {});
  const channel = await connection.createConfirmChannel();
  await channel.assertQueue("copies", { durable: false });
  await channel.bindQueue("copies", "compute.results", "#");
  const results = new Map<string, Result[]>();
  await channel.consume("copies", (delivered) => {
    const { data } = JSON.parse(new TextDecoder().decode(delivered!.content.subarray(1)));
    results.set(data.task_id, [...results.get(data.task_id) ?? [], data]);
  }, { noAck: true });
  return {
    results,
    send: (body: Buffer, taskId: string | null, headers: Record<string, unknown> = {}) =>
      channel.sendToQueue(`${endpointId}.tasks`, body, {
        headers: { function_uuid: FUNCTION, ...(taskId && { task_uuid: taskId }), ...headers },
      }),
    /** Waits for a task's answer. */
    answer: async (taskId: string): Promise<Result> => {
      for (let tries = 0; tries < 300; tries++) {
        const [first] = results.get(taskId) ?? [];
        if (first) return first;
        await new Promise((resolve) => setTimeout(resolve, 50));
      }
      throw new Error(`Task ${taskId} has no answer after 15 s`);
    },
    [Symbol.asyncDispose]: () => connection.close().catch(() => {}),
  };
}

Deno.test("bad input over AMQP is answered well, and the next task runs", async () => {
  await using site = await startSite();
  const endpointId = await site.startEndpoint("bad", ENGINE, ALLOWED);
  await using amqp = await wire(site, endpointId);
  const id = () => crypto.randomUUID();

  /** What is sent, and what its answer must hold. */
  const cases: [
    body: (id: string) => Buffer,
    headers: Record<string, unknown>,
    ...parts: string[],
  ][] = [
    [() => Buffer.from("\x02{}"), {}, "version byte 2"],
    [() => Buffer.from("\x01{nonsense"), {}, "no JSON"],
    [() => Buffer.from(""), {}, "empty"],
    [(taskId) => message(taskId, GOOD, "greeting"), {}, '"greeting" is not understood'],
    [(taskId) => message(taskId, GOOD), { function_uuid: undefined }, "function_uuid"],
    [(taskId) => message(taskId, GOOD), { function_uuid: "../../x" }, "function_uuid"],
    [(taskId) => message(taskId, GOOD.slice(0, -3)), {}, "cut short"],
    [(taskId) => message(taskId, "nothing"), {}, "no length"],
    [() => message(id(), GOOD), {}, "its AMQP header"],
    [(taskId) => message(taskId, GOOD), { function_uuid: id() }, "not permitted on endpoint"],
    [
      (taskId) => message(taskId, GOOD),
      { resource_specification: '{"num_nodes": 2}' },
      "num_nodes",
    ],
    [(taskId) => message(taskId, GOOD), { resource_specification: "{" }, "no JSON"],
    [(taskId) => message(taskId, buffer("def f(): return " + "[".repeat(3000))), {}, "Error"],
  ];
  for (const [body, headers, ...parts] of cases) {
    const taskId = id();
    amqp.send(body(taskId), taskId, headers);
    const answer = await amqp.answer(taskId);
    ok(answer.error_details, `an error for ${parts}`);
    for (const part of parts) includes(answer.data, part);
  }

  // without a header the id is taken from the body; without any id there is nobody to answer
  const unnamed = id();
  amqp.send(message(unnamed, GOOD), null);
  includes((await amqp.answer(unnamed)).data, "task_uuid");
  amqp.send(Buffer.from("\x01"), null);

  // ten MiB of arguments pass; and a task that comes twice is answered once
  const large = id();
  const source = `def f(): return len("${"x".repeat(10 * 1024 * 1024)}")`;
  amqp.send(message(large, buffer(source)), large);
  const twice = id();
  amqp.send(message(twice, GOOD), twice);
  amqp.send(message(twice, GOOD), twice);
  equal((await amqp.answer(twice)).error_details, undefined);
  equal((await amqp.answer(large)).error_details, undefined);

  const last = id();
  amqp.send(message(last, GOOD), last);
  equal((await amqp.answer(last)).error_details, undefined);
  await new Promise((resolve) => setTimeout(resolve, 1500));
  for (const [taskId, answers] of amqp.results) equal(answers.length, 1, `answers to ${taskId}`);
  const { counts } = JSON.parse((await site.endpoint("status", "bad", "--json")).stdout);
  equal([counts.waiting, counts.running, counts.answering, counts.unacknowledged], [0, 0, 0, 0]);
});

Deno.test("a connection that the administrator closes under load loses nothing", async () => {
  await using site = await startSite();
  const endpointId = await site.startEndpoint("broker", ENGINE);
  const sent: string[] = [];
  {
    await using amqp = await wire(site, endpointId);
    for (let i = 0; i < 200; i++) {
      const taskId = crypto.randomUUID();
      sent.push(taskId);
      amqp.send(message(taskId, buffer("def f():\n import time; time.sleep(0.01)")), taskId);
    }
    await amqp.answer(sent[20]!);
    await site.broker.ctl("close_all_connections", "a test asked for it").catch(() => {});
  }
  for (let tries = 0;; tries++) {
    const { stdout } = await site.endpoint("status", "broker", "--json");
    const { counts } = JSON.parse(stdout);
    if (counts.answered >= 200) break;
    ok(tries < 150, `all 200 are answered within 15 s: ${JSON.stringify(counts)}`);
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
});
